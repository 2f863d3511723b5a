"""The child's side of the sandbox: one call after another, each within its limits.

The main thread only speaks with the parent. Every call has a thread of its own, because a thread
that gave up all files but some can never open another (pipelines.sandbox.confinement).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import select
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from pipelines.media.errors import MediaError
from pipelines.media.program import program
from pipelines.sandbox import confinement, wire
from pipelines.sandbox.calls import Limits


def serve(descriptor: int) -> NoReturn:
    """The child's life: one call after another, until the parent is gone."""
    connection = _guarded(descriptor)
    connection.send_bytes(wire.encode(_give_up()))
    while True:
        try:
            call = connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(0)
        answer = _answer(*wire.decode(call, importing=True))
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
        poller = select.poll()
        poller.register(watched, select.POLLRDHUP)
        poller.poll()
        os._exit(0)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    return Connection(descriptor)


def _give_up() -> list[str]:
    """Gives up for good what no call needs; gives what this kernel does not let it give up."""
    held = {
        "network": confinement.deny_network_and_processes(but_programs=bool(_programs())),
        "files": bool(confinement.landlock_version()),
    }
    return [what for what, is_held in held.items() if not is_held]


@cache
def _programs() -> list[str]:
    """The FFmpeg that encodes, if FFMPEG_BINARY names one, and what loads it; nothing else is ever
    started."""
    path = program()
    return [path, *confinement.loaders()] if path else []


def _answer(limits: Limits, name: tuple[str, str], args: Any, kwargs: dict[str, Any]) -> bytes:
    """The call's answer, from a thread of its own: what a thread gives up, it can't have back."""
    answers: list[bytes] = []

    def answer() -> None:
        try:
            answers.append(wire.encode(_outcome(limits, function, args, kwargs)))
        except wire.WireError as error:
            answers.append(wire.encode(("fault", f"what {name[1]} gives: {error}")))

    try:
        function: Any = importlib.import_module(name[0])
        for part in name[1].split("."):
            function = getattr(function, part)
        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()
        return answers[0]
    except Exception:
        return wire.encode(("fault", traceback.format_exc()))


def _outcome(
    limits: Limits, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> tuple[str, Any]:
    try:
        confinement.confine_thread_to(limits.reads, limits.writes, _programs())
        with _limited(limits):
            result = function(*args, **kwargs)
        return "result", result
    except MediaError as error:
        return "media_error", (error.reason, error.detail)
    except MemoryError as error:
        return "media_error", ("out_of_memory", str(error))
    except Exception as error:
        if "insufficient memory" in str(error).lower():  # OpenCV's own kind of MemoryError
            return "media_error", ("out_of_memory", str(error))
        return "fault", traceback.format_exc()


@contextlib.contextmanager
def _limited(limits: Limits) -> Iterator[None]:
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
