"""Opening a file that may be anything: whitelists and limits before a single picture is decoded.

Measured dangers behind each rule (facts: "Media safety"): a playlist or concat script named .mp4
makes FFmpeg open other files or hosts; a 357 KB picture bomb takes 1.6 GB; hundreds of streams
cost minutes; names such as `http:x.mp4` or `-x.mp4` are read as something else.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from pipelines.media.encoders import file_url
from pipelines.media.errors import MediaError

#: Demuxers that read one local file and nothing else. Raw streams (mp3, h264) are left out:
#: their probes accept noise.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,mxf,ivf,wav,flac"
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")

_CONTAINER_MAGIC = (  # (offset, bytes): what a file claims to be, whether or not it can be read
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"free"),
    (4, b"wide"),
    (0, b"\x1aE\xdf\xa3"),
    (8, b"AVI "),
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75"),
    (0, b"\x00\x00\x01\xba"),
    (0, b"\x47\x40"),
    (0, b"GIF8"),
    (0, b"\x06\x0e\x2b\x34"),
    (0, b"DKIF"),
)
_SOUND_MAGIC = ((0, b"ID3"), (0, b"\xff\xfb"), (0, b"fLaC"), (8, b"WAVE"))
_IMAGE_MAGIC = ((0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (8, b"WEBP"))


@dataclass(frozen=True)
class MediaLimits:
    """What is refused before it is decoded."""

    max_pixels: int = 8192 * 4320
    max_streams: int = 32


DEFAULT_LIMITS = MediaLimits()


def head_of_file(path: str | Path, num_bytes: int = 32) -> bytes:
    """The first bytes of a regular file.

    Raises MediaError not_regular_file (without opening pipes or devices, which can hang),
    unreadable, or empty.
    """
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise MediaError("not_regular_file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MediaError("unreadable", error.strerror or str(error)) from None
    try:
        head = os.read(descriptor, num_bytes)
    except OSError as error:
        raise MediaError("unreadable", error.strerror or str(error)) from None
    finally:
        os.close(descriptor)
    if not head:
        raise MediaError("empty")
    return head


def is_image(path: str | Path) -> bool:
    """Whether the file begins as a still picture does. Raises MediaError."""
    return is_image_head(head_of_file(path))


def is_image_head(head: bytes) -> bool:
    return _matches(head, _IMAGE_MAGIC)


@contextmanager
def opened_video(
    source: str | Path | bytes,
    limits: MediaLimits = DEFAULT_LIMITS,
    *,
    skip_loop_filter: bool = False,
    probed: bool = True,
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """The container and its picture stream, set to decode on one thread.

    `source` is a path, or the bytes of a file. `skip_loop_filter` decodes a fifth faster, to
    pictures that are not quite the encoder's: good for judging, never for cutting. Not `probed`, it
    opens 20 times quicker, without the trial decode that tells how the pictures are coded where
    the container does not say it. Raises MediaError with the reason why it gives no picture.
    """
    head = source[:32] if isinstance(source, bytes) else head_of_file(source)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "max_streams": str(limits.max_streams + 1),  # one more, to see that there are more
        "max_pixels": str(limits.max_pixels),
    }
    if not probed:
        options["codec_whitelist"] = "none"  # FFmpeg then finds no decoder to try
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else file_url(source)
        container = av.open(file, "r", options=options, metadata_errors="replace")
    except PermissionError as error:
        raise MediaError("unreadable", str(error)) from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_reason_unopened(head), f"{type(error).__name__}: {error}") from None
    with container:
        stream = _picture_stream(container, limits)
        if skip_loop_filter:
            stream.codec_context.options |= {"skip_loop_filter": "all"}
        yield container, stream


def _picture_stream(container: InputContainer, limits: MediaLimits) -> av.VideoStream:
    if len(container.streams) > limits.max_streams:
        raise MediaError("broken", f"{len(container.streams)} streams")
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic or stream.codec_context is None:
            continue  # the cover of a piece of music
        context = stream.codec_context
        if context.width * context.height > limits.max_pixels:
            raise MediaError("too_large", f"{context.width}x{context.height}")
        context.options = {"max_pixels": str(limits.max_pixels)}
        context.thread_count = 1
        return stream
    raise MediaError("no_video_stream")


def _reason_unopened(head: bytes) -> str:
    if _matches(head, _SOUND_MAGIC):
        return "no_video_stream"
    return "broken" if _matches(head, _CONTAINER_MAGIC) else "not_media"


def _matches(head: bytes, magic: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head[at : at + len(mark)] == mark for at, mark in magic)
