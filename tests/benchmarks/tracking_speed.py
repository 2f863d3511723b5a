"""What recording costs a training step: python -m tests.benchmarks.tracking_speed

A step works for `--step-ms`, then records twenty figures in two runs, as a training does. Shown:
microseconds of each `log_metrics` call, what the calls take of a step, and the ratio of a step to
one that records nothing (on a machine with other work that ratio is mostly the other work's). On
sqlite, with a server on sqlite, with one that answers after two seconds, and with none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIGURES = 20
SLOW_ANSWER_S = 2.0


@dataclass(frozen=True)
class Cost:
    """`call_us`: median and 99 of 100 calls; `step_ms`: mean; `own_ms`: of a step, in our calls;
    `end_s`: of the run's end."""

    call_us: float
    call_us_99: float
    step_ms: float
    own_ms: float
    end_s: float


def work(matrix_NN: np.ndarray, rounds: int) -> None:
    """As a step does: most of it outside the interpreter's lock."""
    for _ in range(rounds):
        matrix_NN @ matrix_NN


def rounds_for(step_ms: float, matrix_NN: np.ndarray) -> int:
    times_s = []
    for _ in range(10):
        started_s = time.perf_counter()
        work(matrix_NN, 100)
        times_s.append((time.perf_counter() - started_s) / 100)
    return max(1, round(step_ms / 1000 / min(times_s)))


def measure(uri: str, steps: int, rounds: int, matrix_NN: np.ndarray) -> Cost:
    """`uri`: empty for no tracking."""
    from pipelines.config import TrackingConfig
    from pipelines.lineage.tracking import Tracker

    tracker = Tracker.open(TrackingConfig(uri, "speed", enabled=bool(uri)))
    figures = {f"figure_{n}": 1.0 / (n + 1) for n in range(FIGURES)}
    calls_s, steps_s = [], []
    with (
        tracker.run("train_base", "speed", {"steps": steps}, {}) as run,
        tracker.run("phase", "phase", {}, {}, parent_run_id=run.run_id) as phase,
    ):
        for step in range(steps):
            step_started_s = time.perf_counter()
            work(matrix_NN, rounds)
            for one in (run, phase):
                started_s = time.perf_counter()
                one.log_metrics(figures, step)
                calls_s.append(time.perf_counter() - started_s)
            steps_s.append(time.perf_counter() - step_started_s)
        ending_s = time.perf_counter()
    calls_s.sort()
    return Cost(
        statistics.median(calls_s) * 1e6,
        calls_s[int(0.99 * len(calls_s))] * 1e6,
        statistics.mean(steps_s) * 1e3,
        sum(calls_s) / steps * 1e3,
        time.perf_counter() - ending_s,
    )


@contextlib.contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    from tests.servers.door import Door
    from tests.servers.mlflow_server import mlflow_server
    from tests.servers.processes import free_port

    with (
        mlflow_server(folder) as server,
        Door(server, lambda _: time.sleep(SLOW_ANSWER_S)) as slow,
    ):
        yield {
            "sqlite": f"sqlite:///{folder}/mlflow.db",
            "server": server,
            f"server, {SLOW_ANSWER_S:g} s an answer": slow.uri,
            "no server": f"http://127.0.0.1:{free_port()}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--step-ms", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=3, help="each place so often, in turn")
    asked = parser.parse_args()
    matrix_NN = np.random.default_rng(0).random((160, 160))
    with tempfile.TemporaryDirectory(prefix="i2vgen-speed-") as name:
        os.environ["I2VGEN_HOME"] = f"{name}/home"
        with places(Path(name)) as uris:
            rounds = rounds_for(asked.step_ms, matrix_NN)
            every = {"none": "", **uris}
            costs: dict[str, list[Cost]] = {place: [] for place in every}
            for _ in range(asked.rounds):
                for place, uri in every.items():
                    costs[place].append(measure(uri, asked.steps, rounds, matrix_NN))
    show(costs)


def show(costs: dict[str, list[Cost]]) -> None:
    base_ms = min(cost.step_ms for cost in costs["none"])
    names = ("call us", "99 %", "own ms", "own %", "step ms", "ratio", "end s")
    print(f"{'tracking':24}" + "".join(f"{name:>9}" for name in names))
    for place, several in costs.items():
        best = min(several, key=lambda cost: cost.step_ms)
        own, ratio = 100 * best.own_ms / best.step_ms, best.step_ms / base_ms
        values = (best.call_us, best.call_us_99, best.own_ms, own, best.step_ms, ratio, best.end_s)
        print(f"{place:24}" + "".join(f"{value:9.3f}" for value in values))


if __name__ == "__main__":
    main()
