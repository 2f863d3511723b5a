"""What lineage adds to a curation and to a training step: by attribution, not by comparison.

    python tests/benchmarks/lineage_cost.py                      # both, 3 rounds
    python tests/benchmarks/lineage_cost.py --only training --steps 100 --rounds 5

Jobs with and without lineage differ by more than one per cent from run to run, so the time spent
in lineage itself is taken, and divided by all of the job's. A call into lineage counts from its
outermost function on, whatever it calls; what the tracking thread does beside the job counts in
processor seconds. Printed are medians over rounds; each round is a process of its own, and records
into a fresh sqlite store. Curation: jobs/curate.py on generated films, shares of the clock and of
the processor time of the job with all its workers. Training: the demo's base network on random
latents of its size, shares of the median step; a checkpoint's part is spread over the steps
between two checkpoints. Import of mlflow and what is done once a job do not grow with the work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.lineage_clock import Clock

REPOSITORY = Path(__file__).resolve().parents[2]
IMPORT = "import of mlflow"
HASHING = "sha256 of the footage, in the workers"
SAMPLE_EVERY_S = 0.25
TARGETS = {"curation": 0.02, "training": 0.01}


def store_in(folder: str | Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def new_store(arguments: argparse.Namespace) -> dict[str, Any]:
    """MLflow makes its tables; the first job of a store does, and no other."""
    from pipelines.config import TrackingConfig
    from pipelines.lineage import tracking

    tracking._import_mlflow()
    started_s = time.perf_counter()
    tracking.Tracker.open(TrackingConfig(store_in(arguments.out)))
    return {"new_store_s": time.perf_counter() - started_s}


# --- curation --------------------------------------------------------------------------------


def curation(arguments: argparse.Namespace) -> dict[str, Any]:
    """One job in this process: what it spent in lineage, and in all."""
    from jobs import curate as job
    from pipelines.curation import curate, prepared, publish, taken_down
    from pipelines.curation.ingest import _read_once, list_footage
    from pipelines.lineage import tracking

    clock, started_s = Clock(), time.perf_counter()
    with clock.timing(IMPORT):
        tracking._import_mlflow()
    clock.wrap_tracking()
    clock.wrap(publish, "fingerprint", "fingerprint")
    for name in ("digest_of_clips", "count_clips"):
        clock.wrap(publish, name, "digest and counts")
    for module, name in (
        (prepared, "taken_down_before"),
        (taken_down, "taken_down_before"),
        (curate, "remember"),
    ):
        clock.wrap(module, name, "tombstones of earlier datasets")
    command = ["--footage", arguments.footage, "--dataset", f"{arguments.out}/set"]
    command += ["--tracking.uri", store_in(arguments.out)]
    result = job.main([*command, "--cluster.num_cpus", "2"])
    wall_s = time.perf_counter() - started_s
    assert result is not None
    hashing = Clock()
    for found in list_footage(arguments.footage):
        with hashing.timing(HASHING), contextlib.suppress(OSError):
            _read_once(found)
    facts = {name: result[name] for name in ("sources", "clips", "kept")}
    return {"wall_s": wall_s, "parts": clock.found(), "hashing": hashing.found(), "facts": facts}


def report_curation(rounds: Sequence[dict[str, Any]]) -> None:
    facts = rounds[0]["facts"]
    print(f"\n### Curation: {', '.join(f'{n} {name}' for name, n in facts.items())}\n")
    print("| part | s | CPU s | of the job's time | of all processor time |\n|---|--:|--:|--:|--:|")
    whole_s = statistics.median(one["wall_s"] for one in rounds)
    cpu_s = statistics.median(one["cpu_s"] for one in rounds)

    def row(title: str, of: Callable[[dict[str, Any]], Sequence[float]]) -> None:
        seconds = [of(one) for one in rounds]
        columns = [statistics.median(s[n] for s in seconds) for n in (0, 1)]
        shares = [
            statistics.median(s[n] / one[total] for s, one in zip(seconds, rounds, strict=True))
            for n, total in ((0, "wall_s"), (1, "cpu_s"))
        ]
        print(f"| {title} | {columns[0]:.3f} | {columns[1]:.3f} | {shares[0]:.2%} "
              f"| {shares[1]:.2%} |")  # fmt: skip

    for title in rounds[0]["parts"]:
        row(title, lambda one, title=title: one["parts"][title])  # type: ignore[misc]
    row("**all of these**", lambda one: _sum(one["parts"].values()))
    without = "all but the import of mlflow"
    row(without, lambda one: _sum(p for t, p in one["parts"].items() if t != IMPORT))
    row(HASHING, lambda one: one["hashing"][HASHING])
    print(f"| the job | {whole_s:.1f} | {cpu_s:.1f} | | |")
    store_s = statistics.median(one["new_store_s"] for one in rounds)
    print(f"\nThe first job of a new sqlite store makes its tables: {store_s:.1f} s more.")
    print(f"target: {TARGETS['curation']:.0%}")


def _sum(parts: Any) -> list[float]:
    return [sum(column) for column in zip(*parts, strict=True)]


# --- training --------------------------------------------------------------------------------


def training(arguments: argparse.Namespace) -> dict[str, Any]:
    """The worker's loop in this process: lineage by part, and the time of every step."""
    import torch

    from pipelines.config import TrackingConfig
    from pipelines.lineage import tracking
    from pipelines.training.checkpoints import ledger, saving
    from pipelines.training.config import LoopConfig, TrainBaseConfig
    from pipelines.training.loop import worker
    from pipelines.training.loop.throughput import Meter, StepTime
    from pipelines.training.loop.workers import Workers
    from pipelines.training.request import prepare_base
    from tests.pipelines.training.synthetic_latents import write_latents
    from tests.pipelines.training.tiny_jobs import Heard

    out = Path(arguments.out)
    write_latents(out / "latents", size=(16, 28), text_shape=(77, 128))
    tracked = TrackingConfig(store_in(out))
    loop = LoopConfig(threads=arguments.threads, validate_every=10**6, sample_every=0,
                      checkpoint_every=arguments.steps)  # fmt: skip
    config = TrainBaseConfig(latents=str(out / "latents"), checkpoints=str(out / "checkpoints"),
                             steps=arguments.steps, init="fresh", loop=loop,
                             tracking=tracked)  # fmt: skip
    job = prepare_base(config).job
    steps_s: list[float] = []
    add = Meter.add

    def added(self: Meter, step: StepTime) -> None:
        steps_s.append(step.seconds)
        add(self, step)

    clock = Clock()
    Meter.add = added  # type: ignore[method-assign]
    clock.wrap(ledger.Ledger, "add", "ledger, a step")
    clock.wrap(ledger.Ledger, "write", "ledger and model card of a checkpoint")
    for owner, name in ((saving.Saver, "_seen"), (saving, "model_card")):
        clock.wrap(owner, name, "ledger and model card of a checkpoint")
    clock.wrap(worker.Trainer, "_tell_environment", "fingerprint, once")
    torch.set_num_threads(arguments.threads)
    tracker = tracking.Tracker.open(tracked)
    with tracker.run("train_base", "base", job.config, {}) as run:
        tracker.settle()
        clock.wrap_tracking()
        here = Workers(0, 1, torch.device("cpu"), lambda figures: None)
        worker.Trainer(job, here, run, Heard()).run()
        tracker.settle()
    step_s = statistics.median(steps_s[3:])
    facts = {"samples": len(steps_s), "clips seen": len(set(_seen_clips(out)))}
    return {"step_s": step_s, "steps": len(steps_s), "parts": clock.found(), "facts": facts}


def _seen_clips(out: Path) -> list[str]:
    import pyarrow.parquet as pq

    (path,) = (out / "checkpoints").glob("step-*/lineage.parquet")
    return list(pq.read_table(path)["clip_id"].to_pylist())


def report_training(rounds: Sequence[dict[str, Any]], threads: int) -> None:
    steps = rounds[0]["steps"]
    print(f"\n### Training: {steps} steps, {threads} threads, a checkpoint every {steps}\n")
    print("| part | ms a step | of a step |\n|---|--:|--:|")

    def row(title: str, of: Callable[[dict[str, Any]], float]) -> None:
        a_step_s = [of(one) / steps for one in rounds]
        shares = [s / one["step_s"] for s, one in zip(a_step_s, rounds, strict=True)]
        milliseconds = 1000 * statistics.median(a_step_s)
        print(f"| {title} | {milliseconds:.3f} | {statistics.median(shares):.3%} |")

    # The thread beside takes processor time from the step, so it counts with what it used.
    for title in rounds[0]["parts"]:
        row(title, lambda one, title=title: max(one["parts"][title]))  # type: ignore[misc]
    row("**all of these**", lambda one: sum(map(max, one["parts"].values())))
    step_ms = 1000 * statistics.median(one["step_s"] for one in rounds)
    print(f"| the step | {step_ms:.1f} | |\n\ntarget: {TARGETS['training']:.0%}")


# --- rounds ----------------------------------------------------------------------------------

MEASURED = {"store": new_store, "curation": curation, "training": training}


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(MEASURED[arguments.child](arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="lineage-cost-") as folder:
        footage = Path(folder) / "footage"
        if arguments.only != "training":
            write_films(footage, arguments.films)
            report_curation([_round("curation", arguments, footage) for _ in _rounds(arguments)])
        if arguments.only != "curation":
            found = [_round("training", arguments, footage) for _ in _rounds(arguments)]
            report_training(found, arguments.threads)


def write_films(folder: Path, films: int) -> None:
    from pipelines.footage import write_world

    write_world(folder, preset="large", num_films=films, real_clips=False, broken=False)


def _rounds(arguments: argparse.Namespace) -> range:
    return range(arguments.rounds)


def _round(what: str, arguments: argparse.Namespace, footage: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="lineage-cost-") as out:
        words = ["--footage", str(footage), "--out", out]
        words += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
        return {**_in_a_process("store", words, out), **_in_a_process(what, words, out)}


def _in_a_process(what: str, words: list[str], out: str) -> dict[str, Any]:
    """What it tells, and the processor seconds of it and of all below it."""
    import psutil

    from tests.benchmarks.reuse_speed import family_of

    kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment = {**kept, "I2VGEN_HOME": out, "RAY_AUTH_MODE": "disabled"}
    seen: dict[tuple[int, float], float] = {}
    with open(Path(out) / "log", "wb") as errors:
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", what, *words],
            env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        while child.poll() is None:
            for process in family_of(child.pid):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    seen[process.pid, process.create_time()] = times.user + times.system
            time.sleep(SAMPLE_EVERY_S)
    if child.returncode or not child.stdout:
        raise RuntimeError((Path(out) / "log").read_text(errors="replace")[-3000:])
    told = json.loads(child.stdout.read().splitlines()[-1])
    return {**told, "cpu_s": sum(seen.values())}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("curation", "training"), default="")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each (default 3)")
    parser.add_argument("--films", type=int, default=8, help="films to curate (default 8)")
    parser.add_argument("--steps", type=int, default=50, help="steps to train (default 50)")
    parser.add_argument("--threads", type=int, default=2, help="of a training step (default 2)")
    for hidden in ("--child", "--footage", "--out"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
