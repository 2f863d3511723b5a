"""Decoding in a child process that can be killed: limits on time and memory, no orphans.

Footage is written by strangers and decoders are C. A file may hang, crash, or fill the memory;
whatever it does happens to a child, and its file gets a reason. One child per process is kept and
reused (starting one costs about a second) until it dies or is killed; then the next call starts
another.

The child is started afresh, not forked, so it is safe inside a Ray worker with threads. It ends
at once when its parent does, however that happens: it holds one end of a pipe and exits when the
other end closes.

A decoder that a file has taken over finds little to take: the child gave up the network, other
programs and, during a call, all files but those the call is about (confinement.py); it has none of
the parent's environment that may hold a secret; and what it sends back is data of declared types,
never code (wire.py).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pipelines.config import setting
from pipelines.media.errors import MediaError
from pipelines.records import REASONS
from pipelines.sandbox import wire

P = ParamSpec("P")
Result = TypeVar("Result")

START_TIMEOUT_S = 120.0
MAX_ANSWER_BYTES = 1 << 30
#: What the child is told of the environment; the rest may hold keys and tokens.
_TOLD = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "FFMPEG_BINARY")
_GUARDS = {"network": "seccomp", "files": "Landlock"}


@dataclass(frozen=True)
class SandboxConfig:
    """Limits of one call. Time grows with the file, so that a long film is not a hang."""

    wall_s: float = setting(120.0, "longest a file may take, before its size", unit="s", low=0.1)
    wall_s_per_mib: float = setting(5.0, "further time per MiB of file", unit="s/MiB", low=0)
    memory_mib: int = setting(1536, "memory a file may take while it is read", unit="MiB", low=64)

    def limits(self, size_bytes: int) -> Limits:
        wall_s = self.wall_s + self.wall_s_per_mib * size_bytes / 2**20
        return Limits(wall_s=wall_s, cpu_s=wall_s, memory_bytes=self.memory_mib << 20)


@dataclass(frozen=True)
class Limits:
    """`memory_bytes` is what a call may take beyond what the child holds before it.

    `reads` are the files it may open beside the program's own, `writes` the folders it may write
    to.
    """

    wall_s: float
    cpu_s: float
    memory_bytes: int
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def of_files(self, *reads: str | Path, writes: tuple[str | Path, ...] = ()) -> Limits:
        return replace(
            self, reads=tuple(map(str, reads)), writes=tuple(str(folder) for folder in writes)
        )


class SandboxFault(RuntimeError):
    """A fault of ours: the function raised something that is not a MediaError."""


def run_limited(
    limits: Limits, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
) -> Result:
    """`function(*args, **kwargs)` in this process's child; the function is sent by its name.

    Raises MediaError `timed_out`, `out_of_memory` or `decoder_died` when the child had to be
    killed or died; the function's own MediaError; SandboxFault for any other exception.
    """
    return _child().call(limits, function, args, kwargs)


def stop() -> None:
    """Ends this process's child; the next call starts another, in the environment as it is then."""
    _child().stop()


class _Child:
    """The parent's side of one child process."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None

    def call(
        self, limits: Limits, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        name = (function.__module__, function.__qualname__)
        with self.lock:
            call = wire.encode((limits, name, args, kwargs))
            connection = self._running()
            try:
                connection.send_bytes(call)
                answered = connection.poll(limits.wall_s)
                answer = connection.recv_bytes(MAX_ANSWER_BYTES) if answered else None
            except (EOFError, OSError):
                raise self._autopsy() from None
            except BaseException:  # interrupted: the child still works on a call nobody awaits
                self.stop()
                raise
            if answer is None:
                self.stop()
                raise MediaError("timed_out", f"over {limits.wall_s:.0f} s")
        try:
            return value_of(answer, function)
        except wire.WireError as error:
            self.stop()
            raise MediaError("decoder_died", f"an answer that is none: {error}") from None

    def _running(self) -> Connection:
        if self.connection is None or self.process is None or self.process.poll() is not None:
            self.stop()
            self.process, self.connection = _start()
        return self.connection

    def _autopsy(self) -> MediaError:
        """The reason that fits how the child ended."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        code = self.process.poll()
        self.stop()
        if code == -signal.SIGXCPU:
            return MediaError("timed_out", "over its processor time")
        return MediaError("decoder_died", f"exit status {code}")

    def stop(self) -> None:
        """Kills the child, if there is one, and waits for it to be gone."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = self.connection = None


_current: _Child | None = None
_current_lock = threading.Lock()


def _child() -> _Child:
    """This process's child; a forked process makes its own and leaves its parent's alone."""
    global _current
    with _current_lock:
        if _current is None or _current.owner_pid != os.getpid():
            _current = _Child()
            atexit.register(_current.stop)
        return _current


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"from pipelines.sandbox import child; child.serve({theirs.fileno()})",
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )
        connection = Connection(ours.detach())
    try:
        ready = connection.recv_bytes() if connection.poll(START_TIMEOUT_S) else b""
        missing = wire.decode(ready, list[str])
    except (EOFError, OSError, wire.WireError):
        connection.close()
        raise _why_not_started(process) from None
    for what in missing:
        _say_once(f"{what} ({_GUARDS.get(what)})")
    return process, connection


def _why_not_started(process: subprocess.Popen[bytes]) -> Exception:
    """A fault of ours when the child ended by itself, with an error. Killed from outside, or too
    slow on a machine that is too busy, it says nothing about the file that it was started for; nor
    does status 0, which Python also gives for a child that something else has waited for."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    status = process.poll()
    process.kill()
    process.wait()
    if status is not None and status > 0:
        return SandboxFault(f"the decoding process did not start (exit status {status})")
    return MediaError("decoder_died", f"before it was ready (exit status {status})")


def _environment() -> dict[str, str]:
    told = {name: os.environ[name] for name in _TOLD if name in os.environ}
    return {
        **told,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


@cache
def _say_once(missing: str) -> None:
    logging.getLogger(__name__).warning(
        "this kernel does not let a decoding process give up its %s; limits and whitelists hold, "
        "this second fence does not",
        missing,
    )


def value_of(answer: bytes, function: Callable[..., Any]) -> Any:
    """What the function returned. Raises MediaError or SandboxFault where it raised, and WireError
    for an answer that this function cannot give."""
    kind, value = wire.decode(answer, tuple[str, Any])
    if kind == "media_error" and wire.conforms(value, tuple[str, str]) and value[0] in REASONS:
        raise MediaError(*value)
    if kind == "fault" and isinstance(value, str):
        raise SandboxFault(value)
    if kind == "result" and wire.conforms(value, _returned_by(function)):
        return value
    raise wire.WireError(f"{kind}: {type(value).__name__}")


def _returned_by(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (TypeError, NameError):  # a function written in C, or typed for a checker alone
        return Any
