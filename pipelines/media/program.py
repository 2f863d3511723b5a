"""Encoding by another FFmpeg: the program that `FFMPEG_BINARY` names, in place of PyAV's library.

For whoever may not use the library's x264 (GPL), or wants a build of their own. It makes all H.264
that this project writes: clips that are coded again, and videos. Pictures go to it through a pipe
that carries their times; the library still decodes, and copies what need not be coded again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache

import av
import ffmpeg

from pipelines.config import RequestError

VARIABLE = "FFMPEG_BINARY"
CODEC = "libx264"
ASK_TIMEOUT_S = 30.0
END_TIMEOUT_S = 600.0
_SAID_AT_MOST = 300  # characters of what it says when it fails


def program() -> str:
    """The absolute path of the program, or empty: the library encodes. Raises RequestError."""
    named = os.environ.get(VARIABLE, "")
    found = shutil.which(named) if named else ""
    if found is None:
        raise RequestError(f"{VARIABLE}={named}: no such program; give FFmpeg's path, or unset it")
    return os.path.realpath(found) if found else ""


def program_build() -> dict[str, str] | None:
    """{version, configuration_sha256}, or None where the library encodes. Raises RequestError for
    what is no FFmpeg, or lacks x264."""
    path = program()
    return dict(_build(path)) if path else None


@cache
def _build(path: str) -> dict[str, str]:
    lines = _asked(path, "-version").splitlines()
    version = lines[0].removeprefix("ffmpeg version ").split(" ")[0] if lines else ""
    configured = next((line for line in lines if line.startswith("configuration:")), None)
    if not lines or not lines[0].startswith("ffmpeg version") or configured is None:
        raise RequestError(f"{VARIABLE}={path}: does not say that it is an FFmpeg; unset it")
    if not any(CODEC in line.split() for line in _asked(path, "-encoders").splitlines()):
        raise RequestError(f"{VARIABLE}={path}: has no encoder {CODEC}; use another build")
    return {
        "version": version,
        "configuration_sha256": hashlib.sha256(configured.encode()).hexdigest()[:32],
    }


def _asked(path: str, question: str) -> str:
    try:
        return subprocess.run(
            [path, "-nostdin", "-hide_banner", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "does not answer"
        raise RequestError(
            f"{VARIABLE}={path}: {reason}; give FFmpeg's path, or unset it"
        ) from None


@contextmanager
def encoding_by(
    path: str,
    target_url: str,
    *,
    muxer: str,
    size_px: tuple[int, int],
    pix_fmt: str,
    rate: Fraction,
    time_base: Fraction,
    options: Mapping[str, str],
    colours: Mapping[str, int],
    metadata: Mapping[str, str],
    muxer_options: Mapping[str, str],
    threads: int,
) -> Iterator[Callable[[av.VideoFrame], None]]:
    """Gives a function that takes frames with their pts. Raises ValueError when the program fails,
    with its last words."""
    times = {"fps_mode": "passthrough", "enc_time_base": f"{time_base.numerator}:"}
    times["enc_time_base"] += str(time_base.denominator)
    if muxer in ("mp4", "mov"):
        times["video_track_timescale"] = str(time_base.denominator)
    said = [f"{key}={value}" for key, value in metadata.items()]
    spec = ffmpeg.input("pipe:0", format="nut", protocol_whitelist="pipe").output(
        target_url,
        vcodec=CODEC,
        pix_fmt=pix_fmt,
        f=muxer,
        threads=threads,
        **{"flags:v": "+bitexact", "map_metadata": "-1"},
        **times,
        **colours,
        **options,
        **muxer_options,
        **({f"metadata:g:{n}": text for n, text in enumerate(said)} if said else {}),
    )
    process = subprocess.Popen(
        _command(path, spec),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        with av.open(process.stdin, "w", format="nut") as pipe:
            stream = pipe.add_stream("rawvideo", rate=rate)
            stream.width, stream.height = size_px
            stream.pix_fmt = pix_fmt
            stream.time_base = stream.codec_context.time_base = time_base
            yield lambda frame: pipe.mux(stream.encode(frame))
            pipe.mux(stream.encode(None))
        _end(process)
    except (BrokenPipeError, av.FFmpegError) as error:
        raise ValueError(f"{VARIABLE}: {_last_words(process) or error}") from None
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It ends with its input; outside of the sandbox, where that is allowed, it is killed too."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    with suppress(PermissionError):
        process.kill()
    process.wait()


def _command(path: str, spec: object) -> list[str]:
    words = ffmpeg.compile(spec, cmd=[path, "-nostdin", "-v", "error"], overwrite_output=True)
    return ["-metadata" if word.startswith("-metadata:g:") else word for word in words]


def _end(process: subprocess.Popen[bytes]) -> None:
    _, words = process.communicate(timeout=END_TIMEOUT_S)
    if process.returncode:
        raise ValueError(f"{VARIABLE}: {_one_line(words)}")


def _last_words(process: subprocess.Popen[bytes]) -> str:
    _stop(process)
    return _one_line(process.stderr.read() if process.stderr else b"")


def _one_line(words: bytes) -> str:
    return " ".join(words.decode(errors="replace").split())[-_SAID_AT_MOST:]
