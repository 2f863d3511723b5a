"""A server that is slow, down, or answers 403 neither stops nor slows a job, and gets everything
when it is back."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.spool import files as spool_files
from pipelines.lineage.tracked import places as tracked_places
from pipelines.lineage.tracked import uri as tracking_uri
from pipelines.lineage.tracked.records import KEY_TAG, PENDING
from pipelines.lineage.tracked.replay import chosen_stores, replay_store
from pipelines.lineage.tracking import Run, Tracker
from tests.conftest import REPOSITORY
from tests.pipelines.lineage.tracked.tracked_rows import rows_of
from tests.pipelines.lineage.tracked.tracking_jobs import small_project
from tests.servers.door import Door
from tests.servers.mlflow_server import mlflow_server

DIGEST = "ab" * 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def door(server: str) -> Iterator[Door]:
    with Door(server) as made:
        yield made


@pytest.fixture
def project() -> str:
    return f"project {uuid.uuid4().hex[:8]}"


def store_folder(uri: str, project: str) -> Path:
    return spool_files.store_folder(tracking_uri.spool_root(), uri, project)


def wait_for(holds: Callable[[], bool], patience_s: float = 120) -> None:
    deadline_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def record_one(uri: str, project: str) -> Run:
    tracker = Tracker.open(TrackingConfig(uri, project))
    with tracker.run("train_base", "base", {"a": 1}, {"dataset.uri": "/d"}) as run:
        for step in range(30):
            run.log_metrics({"loss": 1 / (step + 1)}, step)
        run.log_output_model("base", "/c", DIGEST, 29, {})
        run.log_dict({"a": 1}, "config.json")
    return run


@pytest.mark.parametrize("trouble", [Door.shut, Door.forbid])
def test_a_job_that_finds_no_server_goes_on_and_its_records_follow(
    trouble: Callable[[Door], None],
    door: Door,
    server: str,
    project: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble(door)
    with caplog.at_level(logging.WARNING):
        run = record_one(door.uri, project)
    assert run.run_id.startswith(PENDING) and run.ui_url() == ""
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "the job goes on" in warning and "jobs/replay.py" in warning
    # Who asks hears of it.
    config = TrackingConfig(door.uri, project)
    with pytest.raises(RequestError, match="tracking"):
        Tracker.open_existing(config)
    with pytest.raises(RequestError, match="tracking"):
        Tracker.open(config).runs()
    with pytest.raises(RequestError, match="tracking"):
        tracked_places.places_of(config)

    door.open()  # the same process sends what waits
    wait_for(lambda: spool_files.folders_below(store_folder(door.uri, project)) == [])
    (found,) = Tracker.open(TrackingConfig(server, project)).runs()
    assert (found.status, found.run_id) == ("FINISHED", run.run_id)
    assert found.tags[KEY_TAG] == run.ref.removeprefix(PENDING)
    tracker = Tracker.open(TrackingConfig(server, project))
    assert tracker.experiment is not None
    history = tracker.experiment.client.get_metric_history(found.run_id, "loss")
    assert [point.step for point in history] == list(range(30))


def test_a_job_does_not_wait_for_a_server_that_hangs(door: Door, server: str, project: str) -> None:
    door.hold()
    record_one(door.uri, project)
    # The block is over, and the server has not answered the first request.
    wait_for(lambda: door.is_holding)
    assert len(door.requests) == 1
    door.open()
    wait_for(lambda: spool_files.folders_below(store_folder(door.uri, project)) == [])
    (found,) = Tracker.open(TrackingConfig(server, project)).runs()
    assert found.status == "FINISHED" and found.output_models


def test_the_next_job_sends_what_a_dead_one_left(door: Door, server: str, project: str) -> None:
    door.shut()
    job = [sys.executable, "-m", "tests.pipelines.lineage.tracked.tracking_jobs", "project"]
    for _ in range(2):  # the second is the first, started again
        done = subprocess.run([*job, door.uri, project], cwd=REPOSITORY, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(b"the job goes on") == 1 and b"Traceback" not in done.stderr
    assert len(spool_files.folders_below(store_folder(door.uri, project))) == 2
    door.open()
    record_one(door.uri, project)
    # Whoever is there first on this machine: the sweep may have been another job's.
    wait_for(lambda: spool_files.folders_below(store_folder(door.uri, project)) == [])
    tracker = Tracker.open(TrackingConfig(server, project))
    runs = tracker.runs()
    assert len(runs) == 9 and runs[0].name == "base"
    undisturbed = Tracker.open(TrackingConfig(server, f"{project} undisturbed"))
    small_project(undisturbed)
    found = rows_of(tracker)
    found["runs"] = [row for row in found["runs"] if row["name"] != "base"]
    found["models"] = [row for row in found["models"] if row["run"] != "base"]
    assert found == rows_of(undisturbed)


def test_what_is_refused_for_ever_is_set_aside_and_holds_up_nothing(
    server: str, project: str, tmp_path: Path
) -> None:
    tracker = Tracker.open(TrackingConfig(server, project))
    with tracker.run("curate", "x", {}, {}) as run:
        run.log_input_dataset("n" * 600, "/d", DIGEST, "output")  # MLflow takes 500 characters
        run.log_metrics({"clips": 1}, 0)
        large = tmp_path / "large.bin"
        with open(large, "wb") as file:
            file.truncate((64 << 20) + 1)
        run.log_artifact(large)
        large.unlink()
    (found,) = tracker.runs()
    assert found.status == "FINISHED" and found.inputs == ()
    (store,) = chosen_stores(tracking_uri.spool_root(), server, project)
    told = replay_store(store)
    assert (told.sent, told.waiting) == (0, 0)
    lines = "\n".join(told.lines())
    assert "refused: dataset nnn" in lines and "refused: file large.bin" in lines
    assert all(entry["reason"] for entry in told.refused)
    shutil.rmtree(store.place)


def test_places_and_takedowns_that_wait_count(door: Door, server: str, project: str) -> None:
    config = TrackingConfig(door.uri, project)
    door.shut()
    tags = {"takedown.dataset": "/new", "dataset.uri": "/new"}
    with Tracker.open(config).run("takedown", "x", {}, tags) as run:
        run.log_input_dataset("dataset", "/old", DIGEST, "takedown")
    root = tracking_uri.spool_root()
    waiting = list(spool_files.undelivered(root, door.uri, project))
    assert [record["op"] for record in waiting] == ["start", "tags", "dataset", "end"]
    assert set(tracked_places.waiting_places(door.uri, project)) == {"/old", "/new"}
    assert tracked_places.waiting_takedowns(door.uri, project) == {"/new"}
    door.open()
    assert tracked_places.takedowns_of(config) == ["/new"]
    assert tracked_places.places_of(config) == {"/old", "/new"}
