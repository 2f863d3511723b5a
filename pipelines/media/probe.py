"""What a file says of itself, checked by decoding its first picture."""

from __future__ import annotations

import errno
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from PIL import Image, ImageOps

from pipelines.media.errors import MediaError
from pipelines.media.opening import (
    DEFAULT_LIMITS,
    IMAGE_FORMATS,
    MediaLimits,
    head_of_file,
    is_image_head,
    opened_video,
)

MAX_FPS = 1000.0


@dataclass(frozen=True)
class MediaInfo:
    """`width_px` x `height_px` is the picture as displayed: square pixels, upright.

    `rotation_deg` is how far a player turns the coded picture clockwise. `num_frames` and
    `duration_s` are the container's word, None where it has none (`duration_is_of_pictures`: sound
    that goes on for longer is not counted); `start_s` is the first picture's presentation time.
    """

    kind: str
    container: str
    codec: str
    width_px: int
    height_px: int
    coded_width_px: int
    coded_height_px: int
    rotation_deg: int = 0
    fps: float | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    duration_is_of_pictures: bool = False
    start_s: float = 0.0
    time_base: Fraction | None = None

    @property
    def is_image(self) -> bool:
        return self.kind == "image"


def probe(path: str | Path, limits: MediaLimits = DEFAULT_LIMITS) -> MediaInfo:
    """Raises MediaError when no picture can be had from the file."""
    if is_image_head(head_of_file(path)):
        return _probe_image(path, limits)
    with opened_video(path, limits) as (container, stream):
        first = next(decoded(container, stream, DecodeCount()), None)
        if first is None:
            raise MediaError("broken", "no picture could be decoded")
        return info_of_stream(container, stream, first)


def info_of_stream(
    container: InputContainer, stream: av.VideoStream, first: av.VideoFrame
) -> MediaInfo:
    """What the container says, with rotation and start taken from the first decoded frame."""
    width_px, height_px = displayed_size(first, stream.sample_aspect_ratio)
    return MediaInfo(
        kind="video",
        container=_container_name(container),
        codec=stream.codec_context.codec.canonical_name,
        width_px=width_px,
        height_px=height_px,
        coded_width_px=first.width,
        coded_height_px=first.height,
        rotation_deg=-first.rotation % 360,
        fps=_fps(stream),
        num_frames=stream.frames or None,
        duration_s=_pictures_s(stream) or _container_s(container),
        duration_is_of_pictures=_pictures_s(stream) is not None,
        start_s=first.time or 0.0,
        time_base=stream.time_base,
    )


def displayed_size(frame: av.VideoFrame, sample_aspect_ratio: Fraction | None) -> tuple[int, int]:
    """(width_px, height_px) upright and with square pixels; a stretched side is made even."""
    width_px, height_px = frame.width, frame.height
    ratio = sample_aspect_ratio or Fraction(1)
    if ratio > 0 and ratio != 1:
        width_px = max(2, 2 * round(width_px * ratio / 2))
    return (height_px, width_px) if frame.rotation % 180 == 90 else (width_px, height_px)


@dataclass
class DecodeCount:
    """What came out of a decode, against what went in."""

    packets: int = 0
    frames: int = 0
    errors: int = 0
    cut_short: bool = False


def decoded(
    container: InputContainer, stream: av.VideoStream, count: DecodeCount, max_errors: int = 100
) -> Iterator[av.VideoFrame]:
    """Frames in presentation order. A packet that can't be decoded is counted and passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            count.cut_short = True
            packet = None
        if packet is None:
            return
        if packet.size:
            count.packets += 1
            count.cut_short |= packet.is_corrupt
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, av.error.EOFError):
                return
            if getattr(error, "errno", None) == errno.ENOMEM:
                raise MediaError("out_of_memory", str(error)) from None
            count.errors += 1
            if count.errors > max_errors and count.errors > count.frames // 100:
                raise MediaError("broken", f"{count.errors} packets can't be decoded") from None
            continue
        for frame in frames:
            count.frames += 1
            yield frame  # type: ignore[misc]


def read_image(source: str | Path | bytes, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """A still picture as uint8 RGB (H, W, 3), upright as its EXIF tag says. Raises MediaError."""
    with _opened_image(source, limits) as picture:
        try:
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(upright.convert("RGB"))
        except Exception as error:
            raise _image_error(error) from None


def _probe_image(path: str | Path, limits: MediaLimits) -> MediaInfo:
    with _opened_image(path, limits) as picture:
        turned = _turn_of(picture)
        width_px, height_px = picture.size
        upright = (height_px, width_px) if turned % 180 else (width_px, height_px)
        return MediaInfo(
            kind="image",
            container=(picture.format or "").lower(),
            codec=(picture.format or "").lower(),
            width_px=upright[0],
            height_px=upright[1],
            coded_width_px=width_px,
            coded_height_px=height_px,
            rotation_deg=turned,
            num_frames=1,
            duration_s=0.0,
        )


def _turn_of(picture: Image.Image) -> int:
    """Degrees, as the EXIF tag says. Raises MediaError: Pillow decodes a PNG to find it."""
    try:
        return {3: 180, 6: 90, 8: 270}.get(picture.getexif().get(0x0112, 1), 0)
    except Exception as error:
        raise _image_error(error) from None


def _opened_image(source: str | Path | bytes, limits: MediaLimits) -> Image.Image:
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        picture = Image.open(file, formats=IMAGE_FORMATS)
    except Exception as error:
        raise _image_error(error) from None
    if picture.width * picture.height > limits.max_pixels:
        picture.close()
        raise MediaError("too_large", f"{picture.width}x{picture.height}")
    return picture


def _image_error(error: Exception) -> MediaError:
    """Pillow raises OSError, ValueError, SyntaxError, struct.error and its own for a bad file."""
    if isinstance(error, MemoryError):
        return MediaError("out_of_memory")
    if isinstance(error, Image.DecompressionBombError):
        return MediaError("too_large", str(error))
    if "truncated" in str(error).lower():
        return MediaError("truncated", str(error))
    return MediaError("broken", f"{type(error).__name__}: {error}")


def _container_name(container: InputContainer) -> str:
    name = container.format.name.split(",")[0]
    if name == "mov" and container.metadata.get("major_brand", "qt  ") != "qt  ":
        return "mp4"
    return name


def _fps(stream: av.VideoStream) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not 0 < rate <= MAX_FPS:
        return None
    return float(rate)


def _pictures_s(stream: av.VideoStream) -> float | None:
    """How long the picture stream says it is."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return _clock_s(stream.metadata.get("DURATION"))


def _container_s(container: InputContainer) -> float | None:
    """How long the whole is, sound and all: the last resort."""
    return container.duration / av.time_base if container.duration else None


def _clock_s(text: Any) -> float | None:
    """`00:01:02.500` as seconds (Matroska's DURATION tag)."""
    try:
        hours, minutes, seconds = str(text).split(":")
        value = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
