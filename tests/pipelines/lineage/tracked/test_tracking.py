"""Against a real MLflow: on sqlite without a server, and through a server on loopback."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.tracked import places as tracked_places
from pipelines.lineage.tracked.values import flatten
from pipelines.lineage.tracking import KINDS, Tracker
from tests.conftest import REPOSITORY
from tests.pipelines.lineage.tracked.tracked_rows import client_of
from tests.pipelines.lineage.tracked.tracking_jobs import DIGEST, OTHER, record_a_past
from tests.servers.mlflow_server import mlflow_server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sqlite store that two processes create at the same time, each with a run of its own."""
    folder = tmp_path_factory.mktemp("state with spaces") / "not" / "there yet"
    uri = f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "tests.pipelines.lineage.tracked.tracking_jobs", "one", uri]
    jobs = [
        subprocess.Popen([*command, name], cwd=REPOSITORY, stdout=-1, stderr=-1, text=True)
        for name in ("one", "two")
    ]
    for job in jobs:
        out, err = job.communicate(timeout=500)
        assert job.returncode == 0, err
        assert len(out.strip()) == 32
        assert "INFO" not in err and "Traceback" not in err
    return uri


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server"), database) as uri:
        yield uri


@pytest.fixture
def project() -> str:
    return f"project {uuid.uuid4().hex[:8]}"


def experiment_id_of(tracker: Tracker) -> str:
    assert tracker.experiment is not None
    return tracker.experiment.experiment_id


def wait_for(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("place", ["database", "server"])
def test_a_past_is_recorded_whole(place: str, project: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(place)
    tracker, base, refine, model_id = record_a_past(uri, project)
    assert tracker.uri == uri
    assert model_id and tracker.find_model(OTHER) == model_id
    assert tracker.find_model(DIGEST) is None

    second, first = tracker.runs()
    assert (first.run_id, first.kind, first.status) == (base.run_id, "train_base", "FINISHED")
    assert first.params["cluster.num_cpus"] == "2" and first.params["sizes"] == "[64, 112]"
    assert first.params["prompt"].startswith("sha256:")
    assert [(edge.name, edge.uri, edge.digest, edge.context) for edge in first.inputs] == [
        ("dataset", "/data/set", DIGEST, "training"),
        ("dataset (validation)", "/data/set", DIGEST, "validation"),
    ]
    assert first.output_models == second.input_models == (model_id,)
    assert second.tags["mlflow.parentRunId"] == base.run_id
    assert "code.sha256" in first.tags

    client = client_of(tracker)
    history = client.get_metric_history(base.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 1201)]
    files = {f.path for f in client.list_artifacts(base.run_id)}
    assert files == {"config.json", "long_values.json"}
    model = client.get_logged_model(model_id)
    assert model.status == "READY" and model.params == {"width_px": "112"}
    assert [m.model_id for m in client.get_run(refine.run_id).inputs.model_inputs] == [model_id]
    (found,) = tracker.models()
    assert (found.digest, found.uri) == (OTHER, "/data/checkpoints/step-1200")
    assert found.tags["dataset.digest"] == DIGEST
    places = {"/data/set", "/data/checkpoints/step-1200"}
    assert tracker.places() == tracked_places.places_of(TrackingConfig(uri, project)) == places


def test_sqlite_files_lie_beside_the_database(database: str, project: str) -> None:
    tracker, base, _, _ = record_a_past(database, project)
    location = client_of(tracker).get_run(base.run_id).info.artifact_uri
    folder = Path(database.removeprefix("sqlite:///")).parent
    assert location.startswith(folder.as_uri() + "/")
    assert (folder / "mlflow-artifacts").is_dir()


def test_the_same_checkpoint_twice_is_one_model(database: str, project: str) -> None:
    tracker, base, _, model_id = record_a_past(database, project)
    with tracker.resume(base.run_id) as again:
        again.log_output_model("other", "/copy", OTHER, 1200, {})
    with tracker.run("train_base", "the same again", {}, {}) as other:
        other.log_output_model("base", "/copy", OTHER, 1200, {})
    assert len(tracker.models()) == 1
    newest, _, oldest = tracker.runs()
    assert newest.output_models == oldest.output_models == (model_id,)


def test_a_worker_s_records_join_the_run_and_do_not_end_it(database: str, project: str) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    with tracker.run("train_base", "base", {}, {}) as run:
        with Tracker.open(TrackingConfig(database, project)).resume(run.run_id) as worker:
            worker.log_metrics({"loss": 0.5}, 1)
        assert tracker.runs()[0].status == "RUNNING"
        assert len(client_of(tracker).get_metric_history(run.run_id, "loss")) == 1
    assert tracker.runs()[0].status == "FINISHED"


@pytest.mark.parametrize(
    ("raised", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_failed_job_is_a_failed_run(
    database: str, project: str, raised: type[BaseException], status: str
) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    with pytest.raises(raised), tracker.run("encode", "x", {}, {}) as run:
        run.log_metrics({"clips": 1}, 1)
        raise raised
    assert tracker.runs()[0].status == status
    assert client_of(tracker).get_metric_history(run.run_id, "clips")


def test_files_are_copied_beside_the_run(database: str, project: str, tmp_path: Path) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    (tmp_path / "sample.gif").write_bytes(b"GIF89a")
    with tracker.run("generate", "x", {}, {"long": "y" * 9000}) as run:
        run.log_artifact(tmp_path / "sample.gif", "samples")
        run.log_artifact(tmp_path / "missing.gif")
    client = client_of(tracker)
    assert [f.path for f in client.list_artifacts(run.run_id, "samples")] == ["samples/sample.gif"]
    assert "long_tags.json" in {f.path for f in client.list_artifacts(run.run_id)}
    assert tracker.runs()[0].status == "FINISHED"


def test_many_and_strange_params_arrive(database: str, project: str) -> None:
    params = {"a": {str(i): i for i in range(250)}, "ключ=1": float("nan"), "none": None}
    params |= {"half": "\udcff a\0b"}
    tracker = Tracker.open(TrackingConfig(database, project))
    with tracker.run("encode", "x", params, {}):
        pass
    found = tracker.runs()[0].params
    assert len(found) == 253 and found["a.249"] == "249" and found["ключ_1"] == "NaN"
    assert found["half"] == "? a\ufffdb"


@pytest.mark.parametrize("kind", KINDS)
def test_flattening_keeps_every_leaf(kind: str) -> None:
    nested = {"a": {"b": [1, 2], "c": {"d": kind}}, "e": True}
    assert flatten(nested) == {"a.b": "[1, 2]", "a.c.d": kind, "e": "true"}


def test_the_hint_opens_the_run_in_the_right_view(server: str, project: str) -> None:
    tracker = Tracker.open(TrackingConfig(server, project))
    with tracker.run("curate", "x", {}, {}) as run:
        tracker.runs()  # what was recorded is there when it returns
        page = f"/#/experiments/{experiment_id_of(tracker)}/runs/{run.run_id}"
        assert run.ui_hint == page + "?workflowType=machine_learning"
        assert run.ui_url() == server + run.ui_hint
        assert run.ui_url("https://mlflow.example.org/") == f"https://mlflow.example.org{page}" + (
            "?workflowType=machine_learning"
        )


def test_tracking_can_be_off() -> None:
    tracker = Tracker.open(TrackingConfig("http://127.0.0.1:1", enabled=False))
    with tracker.run("curate", "x", {"a": 1}, {"b": "c"}) as run:
        run.log_metrics({"loss": 1.0}, 1)
        run.log_input_dataset("dataset", "/d", DIGEST, "output")
        run.log_input_model(run.log_output_model("m", "/m", OTHER, 1, {}))
        run.log_artifact("/nowhere")
        run.log_dict({}, "x.json")
    assert (run.run_id, run.ui_hint, tracker.find_model(OTHER)) == ("", "", None)
    assert tracker.runs() == [] and tracker.models() == []
    assert not tracker.enabled


def test_reading_makes_no_database(tmp_path: Path) -> None:
    tracker = Tracker.open_existing(TrackingConfig(f"sqlite:///{tmp_path}/none.db"))
    assert tracker.runs() == [] and list(tmp_path.iterdir()) == []


# --- when it goes wrong ------------------------------------------------------------------------


def test_a_deleted_experiment_is_refused(database: str, project: str) -> None:
    tracker = Tracker.open(TrackingConfig(database, project))
    client_of(tracker).delete_experiment(experiment_id_of(tracker))
    with pytest.raises(RequestError, match="deleted"):
        Tracker.open(TrackingConfig(database, project))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database at all, but long enough" * 100)
    with pytest.raises(RequestError, match="not a database"):
        Tracker.open(TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db"))


def test_a_store_that_fails_for_a_while_loses_nothing(
    database: str, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk of the store is "full" in the middle of a run: the job neither dies nor forgets."""
    tracker = Tracker.open(TrackingConfig(database, project))
    path = Path(database.removeprefix("sqlite:///"))
    away = path.with_name("elsewhere")
    with caplog.at_level(logging.WARNING), tracker.run("train_base", "x", {}, {}) as run:
        run.log_metrics({"loss": 1.0}, 1)
        run.flush()
        client_of(tracker)._tracking_client.store.engine.dispose()
        path.rename(away)
        path.mkdir()
        try:
            run.log_metrics({"loss": 0.5}, 2)
            run.flush()
            run.log_output_model("m", "/m", OTHER, 2, {})
            wait_for(lambda: "the job goes on" in caplog.text)
        finally:
            path.rmdir()
            away.rename(path)
        run.log_metrics({"loss": 0.25}, 3)
    assert len([r for r in caplog.records if "the job goes on" in r.getMessage()]) == 1
    history = client_of(tracker).get_metric_history(run.run_id, "loss")
    assert [m.value for m in history] == [1.0, 0.5, 0.25]
    assert tracker.find_model(OTHER) and tracker.runs()[0].status == "FINISHED"
