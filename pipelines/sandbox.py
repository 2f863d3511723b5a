"""Decoding in a child process that can be killed: limits on time and memory, no orphans.

Footage is written by strangers and decoders are C. A file may hang, crash, or fill the memory;
whatever it does happens to a child, and its file gets a reason. One child per process is kept and
reused (starting one costs about a second) until it dies or is killed; then the next call starts
another.

The child is started afresh, not forked, so it is safe inside a Ray worker with threads. It ends
at once when its parent does, however that happens: it holds one end of a pipe and exits when the
other end closes. What it sends back is unpickled with a list of allowed classes, so that a
decoder taken over by a file cannot run code in the parent.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib
import io
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, ParamSpec, TypeVar

from pipelines.config import setting
from pipelines.media.errors import MediaError

P = ParamSpec("P")
Result = TypeVar("Result")

_CHILD_PROGRAM = "from pipelines import sandbox; sandbox.serve"
START_TIMEOUT_S = 120.0
_ALLOWED_NUMPY = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"}


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
    """`memory_bytes` is what a call may take beyond what the child holds before it."""

    wall_s: float
    cpu_s: float
    memory_bytes: int


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
            connection = self._running()
            try:
                connection.send((limits, name, args, kwargs))
                answered = connection.poll(limits.wall_s)
                answer = connection.recv_bytes() if answered else None
            except (EOFError, OSError):
                raise self._autopsy() from None
            except BaseException:  # interrupted: the child still works on a call nobody awaits
                self.stop()
                raise
            if answer is None:
                self.stop()
                raise MediaError("timed_out", f"over {limits.wall_s:.0f} s")
        try:
            kind, value = _ResultUnpickler(io.BytesIO(answer)).load()
        except pickle.UnpicklingError as error:
            self.stop()
            raise MediaError("decoder_died", str(error)) from None
        if kind == "media_error":
            raise MediaError(*value)
        if kind == "fault":
            raise SandboxFault(value)
        return value

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
                f"from pipelines import sandbox; sandbox.serve({theirs.fileno()})",
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        connection = Connection(ours.detach())
    try:
        ready = connection.poll(START_TIMEOUT_S) and connection.recv_bytes() == b"ready"
    except (EOFError, OSError):
        ready = False
    if not ready:
        connection.close()
        process.kill()
        raise SandboxFault(f"the decoding process did not start (exit status {process.wait()})")
    return process, connection


class _ResultUnpickler(pickle.Unpickler):
    """Reads our records and numpy arrays; any other class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in _ALLOWED_NUMPY:
            return super().find_class(module, name)
        if module.startswith("pipelines."):
            found = super().find_class(module, name)
            if isinstance(found, type) and dataclasses.is_dataclass(found):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} may not come out of the sandbox")


# --- the child's side ----------------------------------------------------------------------


def serve(descriptor: int) -> NoReturn:
    """The child's life: one call after another, until the parent is gone."""
    connection = _guarded(descriptor)
    connection.send_bytes(b"ready")
    while True:
        try:
            limits, name, args, kwargs = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        answer = _answer(limits, name, args, kwargs)
        try:
            connection.send_bytes(answer)
        except OSError:
            os._exit(0)


def _guarded(descriptor: int) -> Connection:
    """The connection to the parent, watched: when the parent's end closes, this process ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    watched = socket.socket(fileno=os.dup(descriptor))

    def exit_with_parent() -> None:
        import select

        poller = select.poll()
        poller.register(watched, select.POLLRDHUP)
        poller.poll()
        os._exit(0)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    return Connection(descriptor)


def _answer(
    limits: Limits, name: tuple[str, str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes:
    try:
        function: Any = importlib.import_module(name[0])
        for part in name[1].split("."):
            function = getattr(function, part)
        with _limited(limits):
            answer: tuple[str, Any] = ("result", function(*args, **kwargs))
    except MediaError as error:
        answer = ("media_error", (error.reason, error.detail))
    except MemoryError as error:
        answer = ("media_error", ("out_of_memory", str(error)))
    except Exception as error:
        if "insufficient memory" in str(error).lower():  # OpenCV's own kind of MemoryError
            answer = ("media_error", ("out_of_memory", str(error)))
        else:
            answer = ("fault", traceback.format_exc())
    return pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)


@contextlib.contextmanager
def _limited(limits: Limits) -> Any:
    """Processor time and address space, counted from now. The hard limits stay, to be undone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = int(used.ru_utime + used.ru_stime + limits.cpu_s) + 1
    memory_bytes = _address_space_bytes() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    resource.setrlimit(
        resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1])
    )
    try:
        yield
    finally:
        for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (hard, hard))


def _address_space_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
