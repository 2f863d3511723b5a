"""Ending early without losing a step: what asks for it, and what is left to go on with."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.job import say

if TYPE_CHECKING:
    from pipelines.training.train_job import TrainJob


@contextlib.contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Set by the first SIGTERM (`ray job stop`, a cluster manager, a preempted machine) inside the
    block; a second one ends the process as before. Outside the main thread: never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: Any = signal.getsignal(signal.SIGTERM)

    def on_signal(*_: object) -> None:
        signal.signal(signal.SIGTERM, before)
        stop.set()
        say("asked to stop: saving the step that is being trained")

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def missing_resources(job: TrainJob, have: Mapping[str, float]) -> str:
    """What the workers need and `have` lacks, in words; empty when all is there."""
    wanted = {"CPU": float(job.loop.workers), "GPU": job.loop.workers * job.loop.gpus}
    for kind, amount in wanted.items():
        if have.get(kind, 0.0) < amount:
            return f"they need {amount:g} {kind}, the cluster has {have.get(kind, 0.0):g}"
    return ""


def resources_that_stay() -> dict[str, float]:
    """CPUs and GPUs of the nodes that live and are not announced to go."""
    import ray
    from ray._private.state import state  # Ray 2.60 has no public list of draining nodes

    going = set(state.get_draining_nodes() or {})
    total: dict[str, float] = {}
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] not in going:
            for kind, amount in node["Resources"].items():
                total[kind] = total.get(kind, 0.0) + amount
    return total
