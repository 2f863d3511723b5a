"""A line when this node's Ray goes while a job needs it.

Ray then ends the driver's process from within, with exit code 1 and no word of why: no exception is
raised that could be told. So somebody watches the processes that every driver hangs on: the node's
raylet, the agents that it does not outlive, and the head, if it is here.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from pipelines.job import say

LOOK_EVERY_MS = 500
RAYLET, HEAD = "raylet/raylet", "gcs/gcs_server"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@contextmanager
def said_when_it_goes() -> Iterator[None]:
    """For the block, in which Ray is up."""
    watched, over = _watched(_processes_of_this_node()), threading.Event()
    watch = threading.Thread(target=_watch, args=(watched, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(watched: Sequence[int], over: threading.Event) -> None:
    ended = select.poll()
    for descriptor in watched:
        ended.register(descriptor, select.POLLIN)
    while not over.is_set():
        if ended.poll(LOOK_EVERY_MS) and not over.is_set():
            say("error: Ray on this machine is gone; run the same command again to go on")
            break
    for descriptor in watched:
        os.close(descriptor)


def _watched(processes: Sequence[psutil.Process]) -> list[int]:
    """Descriptors that can be read when a process has ended."""
    found = []
    for process in processes:
        with suppress(OSError):
            found.append(os.pidfd_open(process.pid))
    return found


def _processes_of_this_node() -> list[psutil.Process]:
    """None of them where they live in a place that this process cannot see."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    socket = next((n["RayletSocketName"] for n in ray.nodes() if n["NodeID"] == here), "")
    if not socket:
        return []
    session = socket.partition("/sockets/")[0]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        program, *words = process.info["cmdline"] or [""]
        if program.endswith(RAYLET) and any(socket in word for word in words):
            found.append(process)
            with suppress(psutil.Error):
                found += [p for p in process.children() if _is_agent(p)]
        elif program.endswith(HEAD) and any(f"{session}/" in word for word in words):
            found.append(process)
    return found


def _is_agent(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith(AGENTS)
    return False
