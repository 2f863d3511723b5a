"""The real jobs on a little footage, each disturbed once, run again, and compared with an
undisturbed one by the checker."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.footage import write_world
from pipelines.job import EXIT_TERMINATED
from tests.chaos.checker import (
    checkpoint_violations,
    dataset_violations,
    latents_violations,
    run_violations,
)
from tests.chaos.damage_between import read_again, refusal_violations
from tests.chaos.faults import DAMAGE, TRACKING, Fault, random_fault, strike
from tests.chaos.job_process import Running
from tests.chaos.tracking_trouble import Trouble, tracking_trouble

STEPS, EVERY = 6, 2
MOST_RERUNS = 3
#: Done before it came; in order; before the job had begun.
ENDS_OF_SIGTERM = (0, EXIT_TERMINATED, -signal.SIGTERM)
FILMS = ("films/film-0000.mp4", "films/film-0003.mp4", "stills/still-0000.jpg",
         "broken/half.mp4", "broken/text.mp4")  # fmt: skip
JOBS = {"curate": "curate", "encode": "encode", "train": "train_base"}


@dataclass
class Outcome:
    """`struck`: the fault came to pass; `codes`: how the disturbed run and the reruns ended."""

    job: str
    fault: Fault
    struck: bool
    codes: list[int] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


@dataclass
class World:
    """Footage, and what undisturbed jobs made of it. `seconds`: what each job took when it was last
    left alone, on a machine that may do more by then, or less."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def footage(self) -> Path:
        return self.folder / "footage"

    @property
    def undisturbed(self) -> Path:
        return self.folder / "undisturbed"

    @classmethod
    def make(cls, folder: Path) -> World:
        world = cls(folder)
        write_world(folder / "all", preset="small", real_clips=False)
        for name in FILMS:
            (world.footage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "all" / name, world.footage / name)
        for job in JOBS:
            started_s = time.monotonic()
            running = Running(world.command(job, world.undisturbed), {})
            if running.wait() != 0:
                raise AssertionError(f"undisturbed, {job} ends with {running.said()}")
            world.seconds[job] = time.monotonic() - started_s
        if found := world.violations("train", world.undisturbed, check_runs=True):
            raise AssertionError(f"undisturbed: {found}")
        return world

    def command(self, job: str, out: Path, tracking_uri: str = "") -> list[str]:
        """The job's inputs are undisturbed, its output lies in `out`."""
        of_job = {
            "curate": {"footage": self.footage, "dataset": out / "set", "work": out / "work"},
            "encode": {
                "dataset": self.undisturbed / "set",
                "latents": out / "latents",
                "stage": "base",
                "pack_clips": 2,
            },
            "train": {
                "latents": self.undisturbed / "latents",
                "checkpoints": out / "checkpoints",
                "steps": STEPS,
                "init": "fresh",
                "mixture.frames_per_step": 8,
                "mixture.max_clips_per_step": 2,
                "loop.checkpoint_every": EVERY,
                "loop.threads": 1,
                "loop.validation_clips": 0,
                "loop.sample_every": 0,
            },
        }[job]
        given = {
            **of_job,
            "cluster.address": "local",
            "cluster.num_cpus": 2,
            "tracking.uri": tracking_uri or f"sqlite:///{out / 'mlflow.db'}",
        }
        flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return [sys.executable, f"jobs/{JOBS[job]}.py", *flags]

    def violations(self, job: str, out: Path, *, check_runs: bool = False) -> list[str]:
        before = None if out == self.undisturbed else self.undisturbed
        sets = self.undisturbed / "set"
        found = {
            "curate": lambda: dataset_violations(
                out / "set", self.footage, before and before / "set"
            ),
            "encode": lambda: latents_violations(
                out / "latents", sets, before and before / "latents"
            ),
            "train": lambda: checkpoint_violations(
                out / "checkpoints", STEPS, before and before / "checkpoints"
            ),
        }[job]()
        if check_runs:
            found += run_violations(f"sqlite:///{out / 'mlflow.db'}", self.outputs(out))
        return found

    def outputs(self, out: Path) -> list[Path]:
        return [root / name for root in (out, self.undisturbed)
                for name in ("set", "latents", "checkpoints")]  # fmt: skip

    def disturb(self, job: str, fault: Fault, out: Path) -> Outcome:
        """Runs the job into `out` with the fault, then again without until it is done."""
        out.mkdir(parents=True)
        if fault.kind in TRACKING:
            with tracking_trouble(fault.kind, out / "server", out / "home") as trouble:
                return self._with_tracking_trouble(job, fault, out, trouble)
        command, home = self.command(job, out), out / "home"
        started_s = time.monotonic()
        running = Running(command, fault.environment(out), home=home)
        outcome = Outcome(job, fault, strike(running, fault, out))
        outcome.codes.append(running.wait())
        if fault.kind == "SIGTERM" and outcome.codes[0] not in ENDS_OF_SIGTERM:
            outcome.violations.append(f"ended with {outcome.codes[0]}, {running.said()[-500:]}")
        outcome.struck = outcome.struck or fault.has_struck(out)
        if not outcome.struck:  # it came too late: the next one is to be met
            self.seconds[job] = time.monotonic() - started_s
        if fault.kind in DAMAGE and outcome.codes[-1] != 0:
            files = read_again(job, self.undisturbed, out)
            outcome.violations += refusal_violations(
                command, files, fault.kind, fault.amount, out, home
            )
        while outcome.codes[-1] != 0 and len(outcome.codes) <= MOST_RERUNS:
            again = Running(command, {}, home=home)
            outcome.codes.append(again.wait())
            if outcome.codes[-1] == 2 and "already" in again.said():
                break  # it was killed when all was done
        else:
            if outcome.codes[-1] != 0:
                outcome.violations.append(f"never done: {outcome.codes}, {again.said()[-300:]}")
        outcome.violations += self.violations(job, out, check_runs=True)
        return outcome

    def _with_tracking_trouble(
        self, job: str, fault: Fault, out: Path, trouble: Trouble
    ) -> Outcome:
        """It needs no second run: the job ends as if nothing were wrong, and a replay follows."""
        running = Running(self.command(job, out, trouble.uri), {}, home=out / "home")
        outcome = Outcome(job, fault, False, [running.wait()])
        outcome.struck = bool(trouble.door.requests)
        if outcome.codes != [0] or "Traceback" in running.said():
            outcome.violations.append(f"ended with {outcome.codes}, {running.said()[-500:]}")
        outcome.violations += self.violations(job, out)
        outcome.violations += trouble.violations(JOBS[job], self.outputs(out))
        return outcome


Progress = Callable[[Outcome], None]


def many(world: World, folder: Path, seed: int, runs: int, until_s: float, tell: Progress) -> int:
    """Disturbs jobs at random until `runs` are done or the time is; the number that were. A run
    that violates something stays in `folder`, to be looked at."""
    rng = random.Random(seed)
    for number in range(runs):
        if time.monotonic() > until_s:
            return number
        job = list(JOBS)[number % len(JOBS)]
        outcome = world.disturb(
            job, random_fault(job, rng, world.seconds[job]), folder / f"run-{number:04d}"
        )
        tell(outcome)
        if not outcome.violations:
            shutil.rmtree(folder / f"run-{number:04d}")
    return runs
