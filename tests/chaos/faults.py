"""What is done to a job while it runs: drawn from a seed, and done at its moment."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.failpoints import MARK_VARIABLE, VARIABLE
from tests.chaos.clock import Clock
from tests.chaos.job_process import Running, give_no_more_memory

#: Titles of the processes that a kind of fault kills with SIGKILL; the driver is the job itself.
PROCESSES = {
    "task": ("ray::",),
    "agent": ("ray::DashboardAgent", "ray::RuntimeEnvAgent"),
    "actor": ("ray::MapWorker", "ray::RayTrainWorker", "ray::TrainController"),
    "decoder": ("child.serve",),
    "raylet": ("raylet/raylet",),
    "head": ("gcs_server",),
}
#: A worker of these titles gets no more memory; a controller does no work that needs any.
WORKERS = ("ray::Map", "ray::RayTrainWorker")
#: What MLflow's server does for the length of the job: see tracking_trouble.py.
TRACKING = ("mlflow_slow", "mlflow_down", "mlflow_403")
#: The job is killed, a file of what it reads next is damaged: see damage_between.py.
DAMAGE = ("flip", "cut")
AT_A_FAILPOINT = ("failpoint", "ENOSPC", "EIO")
KINDS = (*PROCESSES, "driver", "SIGTERM", *AT_A_FAILPOINT, "failpoint", "memory", "clock",
         *TRACKING, *DAMAGE)  # fmt: skip

#: Where each job passes, of all failpoints; each is killed at every pass in kill_everywhere.py.
FAILPOINTS_OF = {
    "curate": ("file.before_write", "file.before_fsync", "file.before_rename",
               "file.before_folder_fsync", "file.after", "dataset.before_strangers",
               "dataset.before_clips", "dataset.before_manifest", "dataset.before_scratch"),
    "encode": ("file.before_rename", "file.after", "pack.before_write", "pack.before_commit",
               "pack.after_commit", "latents.before_index", "latents.before_packs",
               "latents.before_header", "latents.after_header"),
    "train": ("checkpoint.before_fill", "checkpoint.before_header", "checkpoint.before_fsync",
              "checkpoint.before_remove", "checkpoint.before_rename",
              "checkpoint.before_folder_fsync", "checkpoint.before_latest",
              "checkpoint.after_latest", "file.before_rename"),
}  # fmt: skip
CLOCK_STAYS_S = 5.0
#: A worker that lives for so long without memory is killed, as the kernel does.
WITHOUT_MEMORY_S = 10.0


@dataclass(frozen=True)
class Fault:
    """`kind`: one of KINDS. At the `nth` pass of `failpoint` if it names one, else after `after_s`;
    what MLflow does lasts as long as the job. `amount`: the seconds that the clock jumps, first
    that way, then as far the other way; the bytes that a worker still gets; the seed of what is
    damaged."""

    kind: str
    after_s: float = 0.0
    failpoint: str = ""
    nth: int = 1
    amount: int = 0

    def environment(self, place: Path) -> dict[str, str]:
        """`place`: a folder for what tells whether it came to pass."""
        if self.kind == "clock":
            return Clock(place / "clock").environment()
        if not self.failpoint:
            return {}
        error = f"={self.kind}" if self.kind in ("ENOSPC", "EIO") else ""
        mark = str(place / "struck")
        return {VARIABLE: f"{self.failpoint}:{self.nth}{error}", MARK_VARIABLE: mark}

    def has_struck(self, place: Path) -> bool:
        """Seen afterwards, by what it left: a clock must have jumped for a worker, too."""
        return (place / "struck").exists() or len(Clock(place / "clock").seen_by()) > 1


def random_fault(job: str, rng: random.Random, lasts_s: float) -> Fault:
    kind = rng.choice(KINDS)
    if job != "curate" and kind == "decoder":
        kind = "actor"  # the clips of a dataset are decoded where they are encoded
    if job == "curate" and kind in DAMAGE:
        kind = "failpoint"  # footage may be damaged: that is a film less, and no refusal
    if kind in TRACKING:
        return Fault(kind)
    if kind in DAMAGE:
        return Fault(kind, amount=rng.randrange(1 << 30))
    if kind in AT_A_FAILPOINT:
        return Fault(kind, failpoint=rng.choice(FAILPOINTS_OF[job]), nth=rng.choice((1, 1, 2, 3)))
    amount = 0
    if kind == "clock":
        amount = rng.choice((-1, 1)) * rng.randint(3600, 48 * 3600)
    if kind == "memory":
        amount = rng.choice((0, 1, 4, 16, 64)) << 20
    return Fault(kind, rng.uniform(0, lasts_s), amount=amount)


def strike(running: Running, fault: Fault, place: Path) -> bool:
    """Waits for the fault's moment and its victim; False when the job is over before, or when only
    what it leaves can tell."""
    if fault.failpoint or fault.kind in TRACKING:
        return False
    _wait(running, fault.after_s)
    if fault.kind == "clock":
        clock = Clock(place / "clock")
        for offset_s in (fault.amount, -fault.amount):
            clock.jump_to(offset_s)
            _wait(running, CLOCK_STAYS_S)
        return False
    if fault.kind in DAMAGE:
        return _kill_in_the_middle(running, place)
    if fault.kind in ("driver", "SIGTERM"):
        if not running.is_running:
            return False
        running.family()
        running.signal(signal.SIGKILL if fault.kind == "driver" else signal.SIGTERM)
        return True
    if fault.kind == "memory":
        return _take_memory_away(running, fault.amount)
    while victim := running.first(PROCESSES[fault.kind]):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            return True
    return False


def _take_memory_away(running: Running, room_bytes: int) -> bool:
    """A worker's allocations fail; if it does not die of that, it is killed for it."""
    while victim := running.first(WORKERS):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            give_no_more_memory(victim, room_bytes)
            break
    else:
        return False
    _wait(running, WITHOUT_MEMORY_S)
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()
    return True


def _kill_in_the_middle(running: Running, place: Path) -> bool:
    """The driver: of a training, when it has a checkpoint to go on from; of an encoding, when its
    workers are there but have committed nothing, so that every shard is still to be read."""
    begun = place / "checkpoints" / "latest.json"
    while running.is_running:
        if begun.exists() or (place / "latents").exists():
            running.family()
            running.signal(signal.SIGKILL)
            return True
        time.sleep(0.02)
    return False


def _wait(running: Running, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while running.is_running and time.monotonic() < until_s:
        time.sleep(0.05)
