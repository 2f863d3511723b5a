"""A job that is started again goes on in its run; what comes late finds its place."""

from __future__ import annotations

import uuid

import pytest

from pipelines.config import ClusterConfig, TrackingConfig
from pipelines.lineage.tracked.records import CHANGED_PARAMS_TAG, KEY_TAG
from pipelines.lineage.tracking import Tracker, job_identity
from tests.pipelines.lineage.tracked.tracked_rows import client_of
from tests.pipelines.lineage.tracked.tracking_jobs import OTHER


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def project() -> str:
    return f"project {uuid.uuid4().hex[:8]}"


def test_a_job_that_failed_goes_on_in_its_run(database: str, project: str) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    one = job_identity("/out", ClusterConfig())
    with pytest.raises(ValueError), tracker.run("train_base", "x", {"a": 1}, {}, identity=one) as r:
        phase = tracker.run("phase", "p", {}, {}, parent_run_id=r.run_id, identity=one)
        with phase as first_phase:
            for step in range(6):
                r.log_metrics({"loss": step / 2, "speed": 1.0}, step)
        raise ValueError
    (_, failed) = tracker.runs()
    assert failed.status == "FAILED"
    with tracker.run("train_base", "x", {"a": 2, "b": 1}, {"again": "1"}, identity=one) as again:
        assert next(r for r in tracker.runs() if r.kind == "train_base").status == "RUNNING"
        phase = tracker.run("phase", "p", {}, {}, parent_run_id=again.run_id, identity=one)
        with phase as second_phase:
            for step in range(4, 9):  # back to the last checkpoint
                again.log_metrics({"loss": step / 2, "speed": 2.0}, step)
    assert again.run_id == r.run_id and second_phase.run_id == first_phase.run_id
    (_, job) = tracker.runs()
    assert (job.status, job.params) == ("FINISHED", {"a": "1", "b": "1"})
    assert job.tags["again"] == "1" and job.tags[CHANGED_PARAMS_TAG] == '{"a": "2"}'
    for name in ("loss", "speed"):
        history = client_of(tracker).get_metric_history(job.run_id, name)
        assert [point.step for point in history] == list(range(9))


def test_a_finished_job_repeated_adds_no_run(database: str, project: str) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    for _ in range(3):
        with tracker.run("generate", "x", {"seed": 1}, {}, identity="video") as run:
            run.log_metrics({"seconds": 3.0}, 0)
    (only,) = tracker.runs()
    assert only.status == "FINISHED"
    assert len(client_of(tracker).get_metric_history(only.run_id, "seconds")) == 1
    with tracker.run("generate", "x", {"seed": 2}, {}, identity="other video"):
        pass
    assert len(tracker.runs()) == 2


def test_twins_that_live_at_once_have_a_run_each(database: str, project: str) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    with tracker.run("generate", "x", {"a": 1}, {}, identity="twins") as one:
        with tracker.run("generate", "x", {"a": 1}, {}, identity="twins") as other:
            other.log_metrics({"seconds": 1.0}, 0)
        one.log_metrics({"seconds": 2.0}, 0)
    second, first = tracker.runs()
    assert {first.run_id, second.run_id} == {one.run_id, other.run_id}
    assert second.tags["i2vgen.beside"] == first.tags[KEY_TAG]
    assert second.tags[KEY_TAG] != first.tags[KEY_TAG]


def test_a_checkpoint_that_is_recorded_late_is_linked_all_the_same(
    database: str, project: str
) -> None:
    """Training's records waited on another machine while the video was made."""
    tracker = Tracker.open(TrackingConfig(database, project))
    with tracker.run("generate", "video", {}, {}) as video:
        video.log_input_model(OTHER)
    assert tracker.runs()[0].input_models == ()
    with tracker.run("train_base", "base", {}, {}) as base:
        base.log_output_model("base", "/c", OTHER, 1, {})
    model_id = tracker.find_model(OTHER)
    run = client_of(tracker).get_run(video.run_id)
    assert [edge.model_id for edge in run.inputs.model_inputs] == [model_id]
    assert "i2vgen.missing_models" not in run.data.tags
