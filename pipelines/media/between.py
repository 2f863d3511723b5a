"""A few pictures out of the middle of a film, found by their times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
from av.container import InputContainer

from pipelines.media.cut_encode import BEFORE_START_S, SAME_TIME_S, TimedFrame, frames_from
from pipelines.media.errors import MediaError
from pipelines.media.opening import DEFAULT_LIMITS, MediaLimits, opened_video
from pipelines.media.picture import Picture
from pipelines.media.probe import DecodeCount, MediaInfo, decoded, info_of_stream

#: How much earlier than the first picture wanted a seek aims, until one lands before it.
SEEK_BACK_S = (0.0, 2.0, 10.0)


def pictures_between(
    path: str | Path,
    ranges_s: Sequence[tuple[float, float]],
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Iterator[tuple[int, float, Picture]]:
    """(number of the range, time, picture) of all that begin to be shown in [start_s, end_s).

    Times are from the film's first picture; ranges come one after another, each in order of time.
    A picture is valid until the next is asked for. Raises MediaError.
    """
    with opened_video(path, limits) as (container, stream):
        first = next(decoded(container, stream, DecodeCount()), None)
        if first is None:
            raise MediaError("broken", "no picture decoded")
        info = info_of_stream(container, stream, first)
        size_px = (info.width_px, info.height_px)
        for number, (start_s, end_s) in enumerate(ranges_s):
            for frame, time_s in _frames_reaching(container, stream, info, start_s):
                if time_s > end_s - SAME_TIME_S:
                    break
                if time_s > start_s - SAME_TIME_S:
                    yield number, time_s, Picture(frame, size_px)


def _frames_reaching(
    container: InputContainer, stream: av.VideoStream, info: MediaInfo, start_s: float
) -> Iterator[TimedFrame]:
    """Frames from a keyframe not after `start_s`, from the nearest that a seek finds."""
    aims_s = [start_s - back_s for back_s in SEEK_BACK_S if back_s < start_s]
    for aim_s in (*aims_s, BEFORE_START_S):
        frames = frames_from(container, stream, info, aim_s)
        begin = next(frames, None)
        if begin is not None and (begin[1] < start_s + SAME_TIME_S or aim_s == BEFORE_START_S):
            yield begin
            yield from frames
            return
