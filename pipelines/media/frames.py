"""Decoded pictures: every one of a file once, small, for judging; or a clip's, resampled in time.

Cost, on 1280x720 H.264 (1.4-2.5 ms a frame to decode on one thread): the planes averaged to 160x90
by halvings 0.06 ms, of every other line 0.05 ms; in one step 0.3 ms; through swscale 0.3-0.9 ms.
Skipping the loop filter of frames that no other refers to saved 0-7 %, of B-frames 1-12 %, of all
frames 18-23 %. Then pictures drift from the encoder's until the next keyframe: 34 dB at worst
after 130 frames of bigbuckbunny.mp4 (44 dB in the middle of bikes.mp4), which moved no cut of 147
generated and 5 real ones. So the watch pass skips it, and nothing that is kept does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, dropwhile
from pathlib import Path

import av
import numpy as np

from pipelines.media.errors import MediaError
from pipelines.media.keyframes import Entry
from pipelines.media.opening import (
    DEFAULT_LIMITS,
    MediaLimits,
    head_of_file,
    is_image_head,
    opened_video,
)
from pipelines.media.picture import Picture, resized, rgb_of_frame
from pipelines.media.probe import DecodeCount, MediaInfo, decoded, info_of_stream, read_image

#: Transfer functions (ITU-T H.273) whose levels mean nothing without tone mapping: PQ and HLG.
HDR_TRANSFERS = (16, 18)
DEFAULT_FPS = 25.0  # of a file that gives neither a rate nor presentation times


@dataclass(frozen=True)
class TimedPicture:
    """`index` counts from 0 in presentation order; `time_s` from the first picture."""

    index: int
    time_s: float
    picture: Picture


class PictureStream:
    """A video being decoded once, from its first picture to its last."""

    def __init__(
        self,
        info: MediaInfo,
        frames: Iterator[av.VideoFrame],
        count: DecodeCount,
        container_frames: int | None,
        first_index: int = 0,
    ) -> None:
        self.info = info
        self._first_index = first_index
        self._frames = frames
        self._count = count
        self._container_frames = container_frames
        self._clock = Clock(info)

    @property
    def end_s(self) -> float:
        """When the last picture decoded so far stops being shown."""
        return self._clock.end_s

    def pictures(self) -> Iterator[TimedPicture]:
        """Raises MediaError at the end: `truncated` when the file held fewer than it says,
        `interlaced` when most of them are woven from two moments.
        """
        clock, index, interlaced = self._clock, self._first_index, 0
        for index, frame in enumerate(self._frames, self._first_index):
            interlaced += frame.interlaced_frame
            picture = Picture(frame, (self.info.width_px, self.info.height_px))
            yield TimedPicture(index, clock.time_s(frame), picture)
        if interlaced > (index + 1 - self._first_index) / 2:
            raise MediaError("interlaced", f"{interlaced} of {index + 1} pictures")
        if self._first_index:
            return  # entered in the middle: the packets were counted when the entries were found
        count = self._count
        missing = (self._container_frames or 0) - count.packets
        if count.cut_short or missing > 0:
            raise MediaError("truncated", f"{count.packets} of {self._container_frames} packets")
        said_s, seen_s = self.info.duration_s or 0.0, max(clock.end_s, clock.shown_s)
        usual_s = 0.05 * said_s + 0.3 if self.info.duration_is_of_pictures else 0.1 * said_s + 1.0
        if not self._container_frames and seen_s < said_s - usual_s:
            raise MediaError("truncated", f"{seen_s:.2f} s of {said_s:.2f} s")


class Clock:
    """Presentation times from the first picture, always rising.

    Where a file gives no time, or one that does not rise, the picture follows the one before by
    a nominal frame: the order is the decoder's, which is the order of presentation.
    """

    def __init__(self, info: MediaInfo) -> None:
        self._start_s = info.start_s
        self._step_s = 1.0 / (info.fps or DEFAULT_FPS)
        self._last_s: float | None = None
        self.shown_s = 0.0  # until when the last picture is shown, where the file says it

    def time_s(self, frame: av.VideoFrame) -> float:
        time_s = None if frame.time is None else frame.time - self._start_s
        if self._last_s is not None and (time_s is None or time_s <= self._last_s + 1e-6):
            time_s = self._last_s + self._step_s
        self._last_s = time_s or 0.0
        self.shown_s = self._last_s + (frame.duration or 0) * float(frame.time_base or 0)
        return self._last_s

    @property
    def end_s(self) -> float:
        """When the last picture given a time stops being shown."""
        return 0.0 if self._last_s is None else self._last_s + self._step_s


@contextmanager
def opened_pictures(
    path: str | Path,
    limits: MediaLimits = DEFAULT_LIMITS,
    *,
    skip_loop_filter: bool = False,
    entry: Entry | None = None,
) -> Iterator[PictureStream]:
    """A video ready to be decoded once, from its first picture or from `entry`.

    Indices and times count from the film's first picture in either case. Raises MediaError when
    it gives no picture, or none at the entry.
    """
    with opened_video(path, limits, skip_loop_filter=skip_loop_filter) as (container, stream):
        count = DecodeCount()
        inside = entry if entry and entry.frame else None
        if inside:
            container.seek(inside.pts, stream=stream, backward=True)
        frames = decoded(container, stream, count)
        if inside:
            frames = dropwhile(lambda frame: (frame.pts or 0) < inside.pts, frames)
        first = next(frames, None)
        if first is None or (inside and first.pts != inside.pts):
            raise MediaError("truncated" if count.cut_short else "broken", "no picture decoded")
        if first.color_trc in HDR_TRANSFERS:
            raise MediaError("hdr", f"transfer {first.color_trc}")
        info = info_of_stream(container, stream, first)
        if inside:
            start_s = float(inside.film_start_pts * (stream.time_base or 0))
            info = replace(info, start_s=start_s)
        first_index = inside.frame if inside else 0
        whole = chain([first], frames)
        yield PictureStream(info, whole, count, stream.frames or None, first_index)


def read_clip_frames(
    clip: str | Path | bytes,
    *,
    fps: float,
    width_px: int,
    height_px: int,
    max_frames: int | None = None,
    centre_crop: bool = True,
) -> np.ndarray:
    """A clip or a still of ours as frames_FHWC uint8 RGB, at `fps` and `width_px` x `height_px`.

    Frame k is the picture whose presentation time is nearest to k / fps, for every k / fps before
    the clip's end; a still gives one frame. `centre_crop` keeps proportions and cuts what
    overhangs; otherwise the picture is stretched. Raises MediaError.
    """
    head = clip[:32] if isinstance(clip, bytes) else head_of_file(clip)
    if is_image_head(head):
        picture = read_image(clip)
        return fitted(picture, width_px, height_px, centre_crop)[None]
    frames = [
        fitted(rgb_of_frame(frame), width_px, height_px, centre_crop)
        for frame in _resampled(clip, fps, max_frames)
    ]
    return np.stack(frames)


def fitted(image_HWC: np.ndarray, width_px: int, height_px: int, centre_crop: bool) -> np.ndarray:
    """The picture at another size; with `centre_crop`, its largest middle part of that shape."""
    if centre_crop:
        height, width = image_HWC.shape[:2]
        crop_w = min(width, max(1, round(height * width_px / height_px)))
        crop_h = min(height, max(1, round(width * height_px / width_px)))
        x, y = (width - crop_w) // 2, (height - crop_h) // 2
        image_HWC = image_HWC[y : y + crop_h, x : x + crop_w]
    return resized(image_HWC, width_px, height_px)


def _resampled(
    clip: str | Path | bytes, fps: float, max_frames: int | None
) -> Iterator[av.VideoFrame]:
    """The frame nearest in time to each k / fps, in order, repeated where frames are sparse."""
    wanted = 0
    before: tuple[av.VideoFrame, float] | None = None
    for frame, time_s in _timed_frames(clip):
        while before is not None and (max_frames is None or wanted < max_frames):
            target_s = wanted / fps
            if target_s > time_s:
                break
            yield frame if time_s - target_s < target_s - before[1] else before[0]
            wanted += 1
        before = (frame, time_s)
        if max_frames is not None and wanted >= max_frames:
            return
    if before is None:
        raise MediaError("broken", "no picture decoded")
    end_s = before[1] + (before[0].duration or 0) * float(before[0].time_base or 0)
    while wanted == 0 or wanted / fps < end_s - 1e-6:
        if max_frames is not None and wanted >= max_frames:
            return
        yield before[0]
        wanted += 1


def _timed_frames(clip: str | Path | bytes) -> Iterator[tuple[av.VideoFrame, float]]:
    with opened_video(clip) as (container, stream):
        clock: Clock | None = None
        for frame in decoded(container, stream, DecodeCount()):
            clock = clock or Clock(info_of_stream(container, stream, frame))
            yield frame, clock.time_s(frame)
