"""Deliveries that are cut off anywhere and begun again leave what one without a break leaves."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage.spool.files import SpoolFolder, folders_below, refused_in, store_folder
from pipelines.lineage.spool.replay import send_folder
from pipelines.lineage.tracked import uri as tracking_uri
from pipelines.lineage.tracked.experiment import Experiment
from pipelines.lineage.tracked.recorder import Recorder
from pipelines.lineage.tracking import Tracker
from tests.conftest import REPOSITORY
from tests.pipelines.lineage.tracked.tracked_rows import rows_of
from tests.pipelines.lineage.tracked.tracking_jobs import small_project
from tests.servers.door import Door
from tests.servers.mlflow_server import mlflow_server


class Killed(BaseException):
    """The process is gone at this very place."""


class Mortal:
    """MLflow's client, until the call at which its process dies: before it or just after."""

    def __init__(self, client: Any, last_call: int, *, answered: bool) -> None:
        self._client, self._left, self._answered = client, last_call, answered

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                if self._answered:
                    method(*arguments, **named)
                raise Killed
            return method(*arguments, **named)

        return call


@pytest.fixture(scope="module")
def spooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole project's records, of a process that found no server."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        runs = small_project(Tracker.open(TrackingConfig(uri)))
    assert all(run.run_id.startswith("pending-") for run in runs)
    (place,) = folders_below(store_folder(tracking_uri.spool_root(), uri, "i2vgen-ray"))
    return shutil.copytree(place, tmp_path_factory.mktemp("spooled") / place.name)


def deliver(place: Path, tracker: Tracker, lives: random.Random | None) -> int:
    """How often the delivering process was killed."""
    experiment, kills = tracker.experiment, 0
    assert experiment is not None
    while True:
        folder = SpoolFolder.take(place)
        assert folder is not None
        client = experiment.client
        if lives is not None and kills < 80:
            client = Mortal(client, lives.randint(0, 12), answered=lives.random() < 0.5)
        own = Experiment(experiment.uri, client, experiment.entities, experiment.experiment_id)
        try:
            sent = send_folder(folder, Recorder(own, place.parent / "create.lock"))
        except Killed:
            kills += 1
            folder.release()
            continue
        assert sent.error is None and sent.refused == 0
        return kills


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('kills')}/mlflow.db"


@pytest.fixture(scope="module")
def undisturbed(spooled: Path, database: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = shutil.copytree(spooled, tmp_path_factory.mktemp("undisturbed") / "spool")
    tracker = Tracker.open(TrackingConfig(database, "undisturbed"))
    assert deliver(place, tracker, None) == 0
    assert not place.exists()
    return rows_of(tracker)


def test_what_was_spooled_is_what_a_job_records_directly(undisturbed: Any, database: str) -> None:
    tracker = Tracker.open(TrackingConfig(database, "directly"))
    small_project(tracker)
    assert rows_of(tracker) == undisturbed
    assert len(undisturbed["runs"]) == 8 and len(undisturbed["models"]) == 2


@pytest.mark.parametrize("seed", range(4))
def test_eighty_kills_change_nothing(
    seed: int, spooled: Path, undisturbed: Any, database: str, tmp_path: Path
) -> None:
    place = shutil.copytree(spooled, tmp_path / "spool")
    tracker = Tracker.open(TrackingConfig(database, f"seed {seed}"))
    assert deliver(place, tracker, random.Random(seed)) > 20
    assert rows_of(tracker) == undisturbed
    assert not place.exists()


def test_a_process_that_never_ended_its_runs_was_killed(
    spooled: Path, database: str, tmp_path: Path
) -> None:
    place = shutil.copytree(spooled, tmp_path / "spool")
    lines = (place / "00000001.jsonl").read_bytes().splitlines(keepends=True)
    (place / "00000001.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:10])
    folder = SpoolFolder.take(place)
    assert folder is not None
    key = next(line for line in lines if b'"op":"start"' in line).split(b'"run":"')[1][:40]
    folder.set_open_runs([key.decode()])
    folder.release()
    shutil.rmtree(place / "files")
    tracker = Tracker.open(TrackingConfig(database, "never ended"))
    assert deliver(place, tracker, None) == 0
    (run,) = tracker.runs()
    assert (run.kind, run.status) == ("curate", "KILLED")


@pytest.mark.slow
def test_replays_that_are_killed_by_the_system_change_nothing(
    undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 when a seeded request has been answered and before the client hears of it."""
    monkeypatch.setenv("I2VGEN_HOME", str(tmp_path / "home"))
    process: list[subprocess.Popen[bytes]] = []
    chosen = random.Random(5)
    last = [0]

    def kill(number: int) -> None:
        if process and number >= last[0]:
            process[0].send_signal(signal.SIGKILL)

    with mlflow_server(tmp_path) as server, Door(server, kill) as door:
        door.shut()
        job = [sys.executable, "-m", "tests.pipelines.lineage.tracked.tracking_jobs", "project"]
        done = subprocess.run([*job, door.uri, "killed"], cwd=REPOSITORY, capture_output=True)
        assert done.returncode == 0, done.stderr
        door.open()
        codes = []
        for life in range(7):
            last[0] = len(door.requests) + (chosen.randint(5, 40) if life < 6 else 10**9)
            command = [sys.executable, "jobs/replay.py", "--tracking.uri", door.uri]
            one = subprocess.Popen(command, cwd=REPOSITORY, stdout=-1, stderr=-1)
            process[:] = [one]
            one.communicate(timeout=300)
            codes.append(one.returncode)
        assert codes == [-signal.SIGKILL] * 6 + [0]
        assert rows_of(Tracker.open(TrackingConfig(server, "killed"))) == undisturbed


def test_a_run_that_can_not_be_started_holds_up_no_other(
    spooled: Path, database: str, tmp_path: Path
) -> None:
    """Its records are set aside with its start; those of the next run go."""
    place = shutil.copytree(spooled, tmp_path / "spool")
    shutil.rmtree(place / "files")
    lines = (place / "00000001.jsonl").read_bytes()
    # As of another version, whose starts say less.
    broken = lines.replace(b'"name":"generate"', b'"nom":"generate"')
    (place / "00000001.jsonl").write_bytes(broken.replace(b'"name":"curate"', b'"nom":"curate"'))
    tracker = Tracker.open(TrackingConfig(database, "not started"))
    folder = SpoolFolder.take(place)
    assert folder is not None and tracker.experiment is not None
    sent = send_folder(folder, Recorder(tracker.experiment, place.parent / "create.lock"))
    assert sent.error is None and sent.refused > 2
    assert sorted({run.kind for run in tracker.runs()}) == ["phase", "train_base", "train_refine"]
    refused = [entry["record"]["op"] for entry in refused_in(place.parent)]
    assert refused.count("start") == 2 and "end" in refused and not place.exists()
