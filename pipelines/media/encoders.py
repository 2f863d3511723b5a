"""The encoders: what makes each quick, good and repeatable at once, and one way to run them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from pipelines.media import program

#: Area averaging without the shortcuts that differ between processors.
EXACT_SCALING = int(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)
FF_QP2LAMBDA = 118  # FFmpeg's unit of `global_quality`


@dataclass(frozen=True)
class Encoder:
    """One entry of `ENCODERS`: what makes it quick, good and repeatable at once."""

    options: Mapping[str, str]
    pix_fmt: str = "yuv420p"
    repeatable: Mapping[str, str] = field(default_factory=dict)
    constant_quantizer: int | None = None
    max_time_base_denominator: int | None = None


#: Codecs `write_video` can write. Options given by the caller are laid over these.
ENCODERS: dict[str, Encoder] = {
    # x264's fast float code (macroblock tree, AVX-512) gave 11 different files in 40 equal runs on
    # 320x180 pictures; its CPU-independent path gave one, at the same speed.
    "libx264": Encoder(
        {"preset": "veryfast", "crf": "18"}, repeatable={"x264-params": "cpu-independent=1"}
    ),
    "libx265": Encoder(
        {"preset": "veryfast", "crf": "22"},
        repeatable={"x265-params": "pools=none:frame-threads=1:wpp=0:log-level=none:info=0"},
    ),
    "libvpx-vp9": Encoder(
        {"crf": "30", "b": "0", "deadline": "good", "cpu-used": "6"},
        repeatable={"row-mt": "0"},
    ),
    "libsvtav1": Encoder({"preset": "10", "crf": "32"}, repeatable={"svtav1-params": "lp=1:pin=0"}),
    "mpeg4": Encoder({}, constant_quantizer=3, max_time_base_denominator=65535),
    "mjpeg": Encoder({}, constant_quantizer=3, pix_fmt="yuvj420p"),
    "prores_ks": Encoder({"profile": "0"}, pix_fmt="yuv422p10le"),
    "ffv1": Encoder({"level": "3"}),
}

#: Container by file name; a codec that a container cannot hold is refused by FFmpeg's muxer.
MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
MUXERS |= {".avi": "avi"}


@dataclass(frozen=True)
class Colours:
    """What the file says its numbers mean (FFmpeg's codes; 2: not said)."""

    matrix: int = int(Colorspace.ITU709)
    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)


@contextmanager
def encoding(
    target: Path,
    *,
    codec: str,
    width_px: int,
    height_px: int,
    pix_fmt: str,
    rate: Fraction,
    time_base: Fraction,
    options: Mapping[str, str],
    colours: Colours | None = None,
    rotation_deg: int = 0,
    metadata: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Iterator[Callable[[av.VideoFrame], None]]:
    """Gives a function that takes frames in `pix_fmt` with their pts; the file is whole on exit.

    `colours` None: BT.709 where the container can say it. Raises ValueError on a codec,
    container, size or time base that do not go together. Nothing is left behind on an exception.
    """
    encoder = encoder_of(codec)
    _check_time_base(encoder, codec, time_base)
    muxer = muxer_of(target)
    if codec == program.CODEC and not rotation_deg and (path := program.program()):
        with (
            _whole_or_gone(target),
            program.encoding_by(
                path,
                file_url(target),
                muxer=muxer,
                size_px=checked_size(width_px, height_px, pix_fmt),
                pix_fmt=pix_fmt,
                rate=rate,
                time_base=time_base,
                options=joined_options(encoder, options),
                colours=_as_options(colours or Colours())
                if colours or is_tagged(pix_fmt, muxer)
                else {},
                metadata=metadata or {},
                muxer_options=muxer_options(muxer),
                threads=threads,
            ) as encode,
        ):
            yield encode
        return
    if codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # else it prints a page per file
    with (
        _whole_or_gone(target),
        av.open(file_url(target), "w", format=muxer, options=muxer_options(muxer)) as file,
    ):
        file.metadata.update(metadata or {})
        stream = _add_stream(file, codec, width_px, height_px, pix_fmt, rate, time_base)
        context = stream.codec_context
        context.thread_count = threads
        _set_options(context, encoder, options)
        if colours or is_tagged(pix_fmt, muxer):
            _set_colours(context, colours or Colours())
        if rotation_deg:
            set_display_rotation(stream, muxer, rotation_deg)
        yield lambda frame: file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@contextmanager
def _whole_or_gone(target: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def encoder_of(codec: str) -> Encoder:
    if codec not in ENCODERS:
        raise ValueError(f"codec {codec!r} is not one of {', '.join(ENCODERS)}")
    return ENCODERS[codec]


def muxer_of(target: Path) -> str:
    if target.suffix.lower() not in MUXERS:
        raise ValueError(f"{target.name}: the suffix must be one of {', '.join(MUXERS)}")
    return MUXERS[target.suffix.lower()]


def muxer_options(muxer: str) -> dict[str, str]:
    if muxer in ("mp4", "mov"):
        return {"fflags": "+bitexact", "movflags": "+faststart"}  # playable while it downloads
    return {"fflags": "+bitexact"}


def is_tagged(pix_fmt: str, muxer: str) -> bool:
    """Whether the file can say BT.709; where it can't, readers take BT.601, and so do we."""
    return not pix_fmt.startswith("yuvj") and muxer != "avi"


def set_display_rotation(stream: av.VideoStream, muxer: str, rotation_deg: int) -> None:
    if rotation_deg % 90 or muxer not in ("mp4", "mov"):
        raise ValueError(f"a rotation of {rotation_deg} degrees cannot be said in {muxer}")
    stream.set_display_rotation(-rotation_deg)  # FFmpeg counts against the clock


def file_url(path: str | Path) -> str:
    """A name FFmpeg can only read as a local file, whatever it starts with ('-x', 'http:x')."""
    return f"file:{Path(path).absolute()}"


def _set_options(context: av.VideoCodecContext, encoder: Encoder, given: Mapping[str, str]) -> None:
    merged = joined_options(encoder, given)
    context.flags |= av.codec.context.Flags.bitexact
    quantizer = merged.pop("qscale", encoder.constant_quantizer)  # `-qscale` of the command line
    if quantizer is not None:
        context.flags |= av.codec.context.Flags.qscale
        context.global_quality = int(quantizer) * FF_QP2LAMBDA
    context.options = merged


def joined_options(encoder: Encoder, given: Mapping[str, str]) -> dict[str, str]:
    """Ours with the caller's over them; `x264-params` and its like are joined, not replaced."""
    merged = {**encoder.options, **encoder.repeatable, **given}
    for key, ours in encoder.repeatable.items():
        if key in given and key.endswith("-params"):
            merged[key] = f"{ours}:{given[key]}"
    return merged


def _as_options(colours: Colours) -> dict[str, int]:
    return {
        "colorspace": colours.matrix,
        "color_primaries": colours.primaries,
        "color_trc": colours.transfer,
        "color_range": int(ColorRange.MPEG),
    }


def _set_colours(context: av.VideoCodecContext, colours: Colours) -> None:
    context.colorspace = colours.matrix
    context.color_primaries = colours.primaries
    context.color_trc = colours.transfer
    context.color_range = ColorRange.MPEG


def _check_time_base(encoder: Encoder, codec: str, time_base: Fraction) -> None:
    limit = encoder.max_time_base_denominator
    if limit and time_base.denominator > limit:
        raise ValueError(f"{codec} holds time bases down to 1/{limit}, got {time_base}")


def _add_stream(
    file: OutputContainer,
    codec: str,
    width_px: int,
    height_px: int,
    pix_fmt: str,
    rate: Fraction,
    time_base: Fraction,
) -> av.VideoStream:
    checked_size(width_px, height_px, pix_fmt)
    stream = cast(av.VideoStream, file.add_stream(codec, rate=rate))
    stream.width, stream.height, stream.pix_fmt = width_px, height_px, pix_fmt
    stream.time_base = time_base
    stream.codec_context.time_base = time_base
    return stream


def checked_size(width_px: int, height_px: int, pix_fmt: str) -> tuple[int, int]:
    """The size. Raises ValueError where the pixel format cannot hold it."""
    across = 2 if "420" in pix_fmt or "422" in pix_fmt else 1
    down = 2 if "420" in pix_fmt else 1
    if width_px % across or height_px % down:
        raise ValueError(
            f"{width_px}x{height_px} px cannot be stored as {pix_fmt}: make it even, or use yuv444p"
        )
    return width_px, height_px
