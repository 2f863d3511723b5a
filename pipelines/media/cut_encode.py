"""A clip with every picture coded again: for crops, turned or stretched pictures, any codec."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange

from pipelines.media.cut_order import Coding, Crop, CutOrder, FrameSpan
from pipelines.media.encoders import EXACT_SCALING, Colours, encoding
from pipelines.media.errors import MediaError
from pipelines.media.frames import Clock
from pipelines.media.picture import byte_planes
from pipelines.media.probe import DecodeCount, MediaInfo, decoded
from pipelines.media.write import exact_fps

#: How much earlier than the clip a seek may aim; None: decode from the first picture. The later
#: tries are for files whose keyframes are followed by pictures shown before them.
SEEK_BACK_S: tuple[float | None, ...] = (0.0, 10.0, None)
BEFORE_START_S = -10.0
SAME_TIME_S = 1e-4  # presentation times closer than this are the same frame's
MAX_TICKS_PER_S = 1_000_000  # finer time bases do not fit MP4's clock

TimedFrame = tuple[av.VideoFrame, float]


def encode_clip(
    container: InputContainer,
    stream: av.VideoStream,
    info: MediaInfo,
    order: CutOrder,
    coding: Coding,
) -> tuple[int, int]:
    """Finds the order's frames by their times and writes them. Returns (width_px, height_px).

    Raises MediaError `cut_failed` when exactly these frames can't be found.
    """
    span = order.span
    for seek_back_s in SEEK_BACK_S:
        if seek_back_s is not None and span.start_s <= seek_back_s:
            continue
        frames = _frames_of_span(container, stream, info, span, seek_back_s)
        if size := encode_frames(frames, info, order, coding):
            return size
    raise MediaError("cut_failed", f"frames {span.start_frame}-{span.end_frame} not found")


def frames_from(
    container: InputContainer, stream: av.VideoStream, info: MediaInfo, aim_s: float
) -> Iterator[TimedFrame]:
    """Frames with their times after the first picture, from a keyframe before `aim_s`, or late.

    An aim before 0 gives the first picture: a seek to its own time misses it in some containers.
    Raises MediaError `cut_failed` where the file cannot be sought in at all.
    """
    time_base = stream.time_base or Fraction(1, 90000)
    try:
        container.seek(int((info.start_s + aim_s) / time_base), stream=stream, backward=True)
    except (av.FFmpegError, OSError):  # others know nothing before their start
        _seek_to_start(container, stream, int(info.start_s / time_base))
    clock = Clock(info)
    for frame in decoded(container, stream, DecodeCount()):
        yield frame, clock.time_s(frame)


def _seek_to_start(container: InputContainer, stream: av.VideoStream, start_pts: int) -> None:
    try:
        container.seek(start_pts, stream=stream, backward=True)
    except (av.FFmpegError, OSError) as error:
        raise MediaError("cut_failed", f"cannot be sought in ({error})") from None


def _frames_of_span(
    container: InputContainer,
    stream: av.VideoStream,
    info: MediaInfo,
    span: FrameSpan,
    seek_back_s: float | None,
) -> Iterator[TimedFrame]:
    """The span's frames: found by time after a seek, by number without one."""
    aim_s = BEFORE_START_S if seek_back_s is None else span.start_s - seek_back_s
    for index, (frame, time_s) in enumerate(frames_from(container, stream, info, aim_s)):
        if seek_back_s is None:
            if index >= span.end_frame:
                return
            if index >= span.start_frame:
                yield frame, time_s
        elif time_s > span.end_s - SAME_TIME_S:
            return
        elif time_s > span.start_s - SAME_TIME_S:
            yield frame, time_s


def encode_frames(
    frames: Iterator[TimedFrame], info: MediaInfo, order: CutOrder, coding: Coding
) -> tuple[int, int] | None:
    """(width_px, height_px) of what was written; None, and no file, when the span isn't whole."""
    span = order.span
    first = next(frames, None)
    if first is None or abs(first[1] - span.start_s) > SAME_TIME_S:
        return None
    box = order.crop or Crop(0, 0, info.width_px, info.height_px)
    width_px, height_px = box.w_px // 2 * 2, box.h_px // 2 * 2
    if width_px < 2 or height_px < 2:
        raise MediaError("cut_failed", f"nothing left inside {box}")
    time_base = _time_base(info)
    written = 0
    try:
        with encoding(
            Path(order.out),
            codec="libx264",
            width_px=width_px,
            height_px=height_px,
            pix_fmt="yuv420p",
            rate=exact_fps(span.num_frames / max(span.end_s - span.start_s, 1e-3)),
            time_base=time_base,
            options={"crf": str(coding.crf), "preset": coding.preset},
            colours=Colours(first[0].colorspace, first[0].color_primaries, first[0].color_trc),
        ) as encode:
            for (frame, time_s), next_s in _with_next_time(first, frames, span.end_s):
                picture = _picture(frame, info, box, width_px, height_px)
                picture.time_base = time_base
                picture.pts = round((time_s - span.start_s) / time_base)
                picture.duration = max(1, round((next_s - time_s) / time_base))
                encode(picture)
                written += 1
            if written != span.num_frames:
                raise _SpanBroken
    except _SpanBroken:
        return None
    except (av.FFmpegError, ValueError) as error:
        raise MediaError("cut_failed", f"{type(error).__name__}: {error}") from None
    return width_px, height_px


class _SpanBroken(Exception):
    """Fewer or more frames between the two times than the span has."""


def _with_next_time(
    first: TimedFrame, rest: Iterator[TimedFrame], end_s: float
) -> Iterator[tuple[TimedFrame, float]]:
    before = first
    for now in rest:
        yield before, now[1]
        before = now
    yield before, end_s


def _time_base(info: MediaInfo) -> Fraction:
    """The source's, so that times stay exact; 1/90000 where it is too fine for H.264."""
    base = info.time_base
    return base if base and base.denominator <= MAX_TICKS_PER_S else Fraction(1, 90000)


def _picture(
    frame: av.VideoFrame, info: MediaInfo, box: Crop, width_px: int, height_px: int
) -> av.VideoFrame:
    """The box of the frame, upright, 8-bit 4:2:0 limited range. Odd corners move to even ones."""
    turned = info.rotation_deg % 180 == 90
    size = (info.height_px, info.width_px) if turned else (info.width_px, info.height_px)
    frame = frame.reformat(
        width=size[0],
        height=size[1],
        format="yuv420p",
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT_SCALING,
        threads=1,
    )
    whole = (width_px, height_px) == (frame.width, frame.height)
    if whole and not info.rotation_deg:
        return frame
    turns = -info.rotation_deg // 90 % 4
    luma, *chroma = (np.rot90(p, turns) for p in byte_planes(frame))
    x, y = box.x_px // 2, box.y_px // 2
    w, h = width_px // 2, height_px // 2
    parts = [luma[2 * y : 2 * (y + h), 2 * x : 2 * (x + w)]]
    parts += [plane[y : y + h, x : x + w] for plane in chroma]
    stacked = np.concatenate([np.ascontiguousarray(p).reshape(-1) for p in parts])
    return av.VideoFrame.from_ndarray(stacked.reshape(h * 3, 2 * w), format="yuv420p")
