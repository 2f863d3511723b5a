"""An MLflow server that is slow, down, or forbids everything for as long as a job runs, and what
it must hold after a replay."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker
from tests.chaos.checker import run_violations
from tests.chaos.job_process import Running
from tests.servers.door import Door
from tests.servers.mlflow_server import mlflow_server

SLOW_S = 3.0
TROUBLES: dict[str, Callable[[Door], None]] = {
    "mlflow_slow": lambda door: door.slow(SLOW_S),
    "mlflow_down": Door.shut,
    "mlflow_403": Door.forbid,
}


@dataclass
class Trouble:
    """`uri`: of the server as the job reaches it; `home`: where what it is not told waits."""

    door: Door
    home: Path

    @property
    def uri(self) -> str:
        return self.door.uri

    def violations(self, kind: str, outputs: list[Path]) -> list[str]:
        """The server answers again: after one replay nothing waits, and the job's run is there as
        if there had been no trouble."""
        self.door.open()
        replay = Running([sys.executable, "jobs/replay.py"], {}, home=self.home)
        if replay.wait() != 0:
            return [f"replay: {replay.said()[-300:]}"]
        waiting = [str(path) for path in (self.home / "spool").rglob("*.jsonl")]
        found = [f"{path}: still waits after a replay" for path in waiting]
        runs = [r for r in Tracker.open(TrackingConfig(self.uri)).runs() if r.kind == kind]
        if [run.status for run in runs] != ["FINISHED"]:
            found.append(f"runs of {kind}: {[run.status for run in runs]}, not one that finished")
        if not all(any(tag.endswith(".digest") for tag in run.tags) for run in runs):
            found.append(f"runs of {kind}: one names no digest")
        return found + run_violations(self.uri, outputs)


@contextlib.contextmanager
def tracking_trouble(kind: str, folder: Path, home: Path) -> Iterator[Trouble]:
    folder.mkdir(parents=True)
    with mlflow_server(folder) as server, Door(server) as door:
        TROUBLES[kind](door)
        yield Trouble(door, home)
