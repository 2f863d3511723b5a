"""Videos and pictures from arrays, with the same bytes every time.

Everything this project encodes (generated films, kept clips, generated videos) is written here:
one encoder thread, no wall-clock in the headers, no processor-dependent shortcuts, so that equal
frames give equal files.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from pipelines.media.encoders import (
    EXACT_SCALING,
    encoder_of,
    encoding,
    file_url,
    is_tagged,
    muxer_of,
    muxer_options,
    set_display_rotation,
)


def write_video(
    path: str | Path,
    frames_HWC: Iterable[np.ndarray],
    *,
    fps: Fraction | float,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    frame_pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation_deg: int = 0,
    metadata: Mapping[str, str] | None = None,
    threads: int = 1,
) -> None:
    """Encodes uint8 RGB frames (H, W, 3) into `path`; the suffix chooses the container.

    Constant rate: frame `i` is shown from `i / fps`. Variable rate: `frame_pts[i] * time_base`,
    strictly rising. `rotation_deg` (0, 90, 180, 270) is how far a player must turn the coded
    picture clockwise to show it upright; only .mp4 and .mov can say it. Colours are BT.709, limited
    range, tagged so (BT.601 for mjpeg and .avi, which cannot say). `metadata` goes into the
    container.

    With `threads=1` equal input gives equal bytes. Raises ValueError on frames of unequal
    shapes, no frames, sizes the pixel format cannot hold, or an unknown codec or container.
    Nothing is left at `path` when it raises.
    """
    target = Path(path)
    if pix_fmt == "yuv420p":
        pix_fmt = encoder_of(codec).pix_fmt
    rate = exact_fps(fps)
    _check_times(frame_pts, time_base)
    base = time_base or 1 / rate
    frames = iter(frames_HWC)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{target.name}: no frames to write")
    tagged = is_tagged(pix_fmt, muxer_of(target))
    with encoding(
        target,
        codec=codec,
        width_px=first.shape[1],
        height_px=first.shape[0],
        pix_fmt=pix_fmt,
        rate=rate,
        time_base=base,
        options=options or {},
        rotation_deg=rotation_deg,
        metadata=metadata,
        threads=threads,
    ) as encode:
        for picture in _timed_pictures(first, frames, pix_fmt, tagged, frame_pts, base):
            encode(picture)


def write_image(path: str | Path, image_HWC: np.ndarray, *, quality: int = 95) -> None:
    """One uint8 RGB picture (H, W, 3) as .jpg, .png or .webp, by suffix; same bytes every time."""
    target = Path(path)
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    if target.suffix.lower() not in formats:
        raise ValueError(f"{target.name}: the suffix must be one of {', '.join(formats)}")
    picture = Image.fromarray(np.ascontiguousarray(image_HWC))
    picture.save(target, format=formats[target.suffix.lower()], quality=quality)


def jpeg_bytes(image_HWC: np.ndarray, *, quality: int = 90) -> bytes:
    """One uint8 RGB picture (H, W, 3) as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def set_rotation(source: str | Path, out: str | Path, rotation_deg: int) -> None:
    """Copies the video packets of `source` (.mp4/.mov) into `out` with another display rotation."""
    muxer = muxer_of(Path(out))
    with (
        av.open(file_url(source), "r", options={"protocol_whitelist": "file"}) as given,
        av.open(file_url(out), "w", format=muxer, options=muxer_options(muxer)) as new,
    ):
        stream = given.streams.video[0]
        copy = new.add_stream_from_template(stream)
        set_display_rotation(copy, muxer, rotation_deg)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)


def exact_fps(fps: Fraction | float) -> Fraction:
    """The rate as a fraction; 29.97 and its like become n * 1000/1001. Raises ValueError."""
    if fps <= 0:
        raise ValueError(f"fps is {fps}, must be above 0")
    if isinstance(fps, Fraction):
        return fps
    whole = round(fps)
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    if abs(fps - whole) > 1e-6 and abs(fps - float(ntsc)) < 5e-3:
        return ntsc
    return Fraction(fps).limit_denominator(1001)


def _check_times(frame_pts: Sequence[int] | None, time_base: Fraction | None) -> None:
    if (frame_pts is None) != (time_base is None):
        raise ValueError("frame_pts and time_base go together: give both or neither")
    if frame_pts is not None and any(b <= a for a, b in itertools.pairwise(frame_pts)):
        raise ValueError("frame_pts must rise strictly")


def _timed_pictures(
    first: np.ndarray,
    rest: Iterator[np.ndarray],
    pix_fmt: str,
    tagged: bool,
    frame_pts: Sequence[int] | None,
    base: Fraction,
) -> Iterator[av.VideoFrame]:
    full_range = pix_fmt.startswith("yuvj")
    matrix = Colorspace.ITU709 if tagged else Colorspace.ITU601
    count = 0
    for frame in _with_first(first, rest):
        if frame.shape != first.shape or frame.dtype != np.uint8 or frame.shape[2] != 3:
            raise ValueError(
                f"frame {count} is {frame.dtype} {frame.shape}, "
                f"expected uint8 {(*first.shape[:2], 3)}"
            )
        if frame_pts is not None and count >= len(frame_pts):
            raise ValueError(f"more frames than the {len(frame_pts)} presentation times given")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(
            format=pix_fmt,
            dst_colorspace=matrix,
            dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            interpolation=EXACT_SCALING,
        )
        picture.pts = count if frame_pts is None else frame_pts[count]
        picture.time_base = base
        picture.duration = 1 if frame_pts is None else _shown_for_pts(frame_pts, count)
        count += 1
        yield picture
    if frame_pts is not None and count != len(frame_pts):
        raise ValueError(f"{count} frames for {len(frame_pts)} presentation times")


def _with_first(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _shown_for_pts(frame_pts: Sequence[int], index: int) -> int:
    """Until the next frame; the last frame is shown as long as the one before it."""
    if len(frame_pts) == 1:
        return 1
    at = min(index, len(frame_pts) - 2)
    return frame_pts[at + 1] - frame_pts[at]
