"""`jobs/replay.py` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker
from tests.conftest import REPOSITORY, run_job
from tests.servers.door import Door
from tests.servers.mlflow_server import mlflow_server
from tests.servers.processes import free_port, server_process


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with mlflow_server(tmp_path) as server, Door(server) as made:
        yield made


def test_with_nothing_to_send_it_says_so(tmp_path: Path) -> None:
    ended = run_job("jobs/replay.py", I2VGEN_HOME=str(tmp_path))
    assert ended.code == 0 and "nothing waits" in ended.err
    assert (ended.result["sent"], ended.result["waiting"]) == (0, 0)


def test_a_relative_place_is_refused() -> None:
    ended = run_job("jobs/replay.py", "--tracking.uri", "sqlite:///here.db")
    assert ended.code == 2 and ended.out == "" and "absolute" in ended.err


@pytest.mark.slow
def test_the_ui_shows_what_waited_for_it(tmp_path: Path) -> None:
    port, home, log = free_port(), str(tmp_path / "home"), tmp_path / "log"
    environment = {**os.environ, "I2VGEN_HOME": home}
    job = [sys.executable, "-m", "tests.pipelines.lineage.tracked.tracking_jobs", "project"]
    subprocess.run(
        [*job, f"http://127.0.0.1:{port}", "mine"], cwd=REPOSITORY, env=environment, check=True
    )
    store = f"sqlite:///{tmp_path}/mlflow.db"
    show = [sys.executable, "jobs/ui.py", "--uri", store, "--port", str(port)]
    sent = lambda: "records that waited" in log.read_text()  # noqa: E731
    with server_process(show, log, sent, environment, cwd=REPOSITORY):
        runs = Tracker.open(TrackingConfig(f"http://127.0.0.1:{port}", "mine")).runs()
    assert len(runs) == 8 and {run.status for run in runs} == {"FINISHED"}
    assert list((tmp_path / "mlflow-artifacts").rglob("video.mp4"))


def test_what_waits_is_listed_and_sent_once(door: Door, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    door.shut()
    job = [sys.executable, "-m", "tests.pipelines.lineage.tracked.tracking_jobs", "project"]
    one = subprocess.run(
        [*job, door.uri, "mine"],
        cwd=REPOSITORY,
        env={**os.environ, "I2VGEN_HOME": home},
        capture_output=True,
    )
    assert one.returncode == 0, one.stderr

    listed = run_job("jobs/replay.py", "--dry-run", I2VGEN_HOME=home)
    (store,) = listed.result["stores"]
    assert listed.code == 0 and listed.result["sent"] == 0
    assert (store["uri"], store["project"]) == (door.uri, "mine")
    assert listed.result["waiting"] > 50

    down = run_job("jobs/replay.py", "--tracking.uri", door.uri, I2VGEN_HOME=home)
    assert down.code == 1 and "still wait" in down.err and "Traceback" not in down.err
    assert down.result["waiting"] == listed.result["waiting"]

    door.open()
    other = run_job("jobs/replay.py", "--tracking.uri", "http://other:1", I2VGEN_HOME=home)
    assert other.code == 0 and other.result["stores"] == []
    sent = run_job("jobs/replay.py", I2VGEN_HOME=home)
    assert sent.code == 0, sent.err
    assert sent.result["sent"] + sent.result["files"] == listed.result["waiting"]
    again = run_job("jobs/replay.py", I2VGEN_HOME=home)
    assert again.code == 0 and again.result["stores"] == []

    runs = Tracker.open(TrackingConfig(door.uri, "mine")).runs()
    assert sorted(run.kind for run in runs) == sorted(
        ["curate", "train_base", "train_refine", "generate", *["phase"] * 4]
    )
    assert {run.status for run in runs} == {"FINISHED"}
