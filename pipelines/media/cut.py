"""A clip out of its source: exactly the frames asked for, coded again, the same bytes every time.

Presentation times are copied, not resampled: a variable rate stays variable, so no frame is
dropped or doubled, and readers that want a steady rate choose frames by time. Rotation is applied
and stretched pixels are made square, so a clip needs no side data to be shown right. Sound is
left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange

from pipelines.media.encoders import EXACT_SCALING, Colours, encoding
from pipelines.media.errors import MediaError
from pipelines.media.frames import Clock
from pipelines.media.opening import (
    DEFAULT_LIMITS,
    MediaLimits,
    head_of_file,
    is_image_head,
    opened_video,
)
from pipelines.media.picture import byte_planes
from pipelines.media.probe import DecodeCount, MediaInfo, decoded, info_of_stream, read_image
from pipelines.media.write import exact_fps, write_image

#: How much earlier than the clip a seek may aim; None: decode from the first picture. The later
#: tries are for files whose keyframes are followed by pictures shown before them.
SEEK_BACK_S: tuple[float | None, ...] = (0.0, 10.0, None)
SAME_TIME_S = 1e-4  # presentation times closer than this are the same frame's


@dataclass(frozen=True)
class CutResult:
    """`width_px` x `height_px` of the clip's picture; `sha256` of the file's bytes."""

    num_frames: int
    width_px: int
    height_px: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Crop:
    """A rectangle in displayed source pixels."""

    x_px: int
    y_px: int
    w_px: int
    h_px: int


def cut_clip(
    source: str | Path,
    out: str | Path,
    *,
    start_frame: int,
    end_frame: int,
    start_s: float,
    end_s: float,
    crop: Crop | None = None,
    crf: int = 18,
    preset: str = "veryfast",
    limits: MediaLimits = DEFAULT_LIMITS,
) -> CutResult:
    """Writes frames [start_frame, end_frame) of `source`, shown from `start_s` to `end_s`.

    `out` ends in .mp4 (H.264, yuv420p), or .jpg for a still source. Times are from the source's
    first picture, as `opened_pictures` gives them. Raises MediaError `cut_failed` when exactly
    these frames can't be found, and the usual reasons when the source can't be decoded; nothing
    is left at `out` then.
    """
    target = Path(out)
    if is_image_head(head_of_file(source)):
        return _cut_image(source, target, crop, limits)
    span = Span(start_frame, end_frame, start_s, end_s)
    for seek_back_s in SEEK_BACK_S:
        if seek_back_s is not None and start_s <= seek_back_s:
            continue
        with opened_video(source, limits) as (container, stream):
            first = next(decoded(container, stream, DecodeCount()), None)
            if first is None:
                raise MediaError("broken", "no picture decoded")
            info = info_of_stream(container, stream, first)
            frames = _frames_of_span(container, stream, info, span, seek_back_s)
            size = _encode(target, frames, info, span, crop, {"crf": str(crf), "preset": preset})
        if size:
            return _result(target, span.num_frames, *size)
    raise MediaError("cut_failed", f"frames {start_frame}-{end_frame} not found")


@dataclass(frozen=True)
class Span:
    """Frames [start_frame, end_frame), shown from `start_s` to `end_s` after the first picture."""

    start_frame: int
    end_frame: int
    start_s: float
    end_s: float

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.start_frame


def _frames_of_span(
    container: InputContainer,
    stream: av.VideoStream,
    info: MediaInfo,
    span: Span,
    seek_back_s: float | None,
) -> Iterator[tuple[av.VideoFrame, float]]:
    """The span's frames with their times: found by time after a seek, by number without one."""
    aim_s = 0.0 if seek_back_s is None else span.start_s - seek_back_s
    time_base = stream.time_base or Fraction(1, 90000)
    container.seek(int((info.start_s + aim_s) / time_base), stream=stream, backward=True)
    clock = Clock(info)
    for index, frame in enumerate(decoded(container, stream, DecodeCount())):
        time_s = clock.time_s(frame)
        if seek_back_s is None:
            if index >= span.end_frame:
                return
            if index >= span.start_frame:
                yield frame, time_s
        elif time_s > span.end_s - SAME_TIME_S:
            return
        elif time_s > span.start_s - SAME_TIME_S:
            yield frame, time_s


def _encode(
    target: Path,
    frames: Iterator[tuple[av.VideoFrame, float]],
    info: MediaInfo,
    span: Span,
    crop: Crop | None,
    options: dict[str, str],
) -> tuple[int, int] | None:
    """(width_px, height_px) of what was written; None, and no file, when the span isn't whole."""
    first = next(frames, None)
    if first is None or abs(first[1] - span.start_s) > SAME_TIME_S:
        return None
    box = crop or Crop(0, 0, info.width_px, info.height_px)
    width_px, height_px = box.w_px // 2 * 2, box.h_px // 2 * 2
    if width_px < 2 or height_px < 2:
        raise MediaError("cut_failed", f"nothing left inside {box}")
    time_base = _time_base(info)
    written = 0
    try:
        with encoding(
            target,
            codec="libx264",
            width_px=width_px,
            height_px=height_px,
            pix_fmt="yuv420p",
            rate=exact_fps(span.num_frames / max(span.end_s - span.start_s, 1e-3)),
            time_base=time_base,
            options=options,
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
    first: tuple[av.VideoFrame, float], rest: Iterator[tuple[av.VideoFrame, float]], end_s: float
) -> Iterator[tuple[tuple[av.VideoFrame, float], float]]:
    before = first
    for now in rest:
        yield before, now[1]
        before = now
    yield before, end_s


def _time_base(info: MediaInfo) -> Fraction:
    """The source's, so that times stay exact; 1/90000 where it is too fine for H.264."""
    base = info.time_base
    return base if base and base.denominator <= 1_000_000 else Fraction(1, 90000)


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


def _cut_image(
    source: str | Path, target: Path, crop: Crop | None, limits: MediaLimits
) -> CutResult:
    image_HWC = read_image(source, limits)
    if crop:
        image_HWC = image_HWC[crop.y_px : crop.y_px + crop.h_px, crop.x_px : crop.x_px + crop.w_px]
    if target.suffix.lower() not in (".jpg", ".jpeg") or not image_HWC.size:
        raise MediaError("cut_failed", "a still becomes a .jpg with at least one pixel")
    write_image(target, image_HWC)
    return _result(target, 1, image_HWC.shape[1], image_HWC.shape[0])


def _result(target: Path, num_frames: int, width_px: int, height_px: int) -> CutResult:
    data = target.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return CutResult(num_frames, width_px, height_px, len(data), sha256)
