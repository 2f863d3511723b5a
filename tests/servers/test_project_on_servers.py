"""A whole project of runs on PostgreSQL, with artifacts in an object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage.tracked import places as tracked_places
from pipelines.lineage.tracking import Tracker
from tests.pipelines.lineage.tracked.tracked_rows import rows_of
from tests.pipelines.lineage.tracked.tracking_jobs import BASE, DATASET, REFINE, small_project
from tests.servers.mlflow_server import MlflowServer
from tests.servers.object_store import ObjectStore, object_store
from tests.servers.postgres import postgres

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Servers:
    mlflow: MlflowServer
    objects: ObjectStore


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    with (
        postgres() as database,
        object_store(folder) as objects,
        MlflowServer(folder, database, objects.uri, objects.environment) as mlflow,
    ):
        yield Servers(mlflow, objects)


@pytest.fixture(scope="module")
def undisturbed(servers: Servers) -> Any:
    tracker = Tracker.open(TrackingConfig(servers.mlflow.uri, "undisturbed"))
    small_project(tracker)
    return rows_of(tracker)


def test_the_project_is_read_back(servers: Servers, undisturbed: Any) -> None:
    config = TrackingConfig(servers.mlflow.uri, "undisturbed")
    runs = {row["name"]: row for row in undisturbed["runs"]}
    assert len(runs) == 8 and {row["status"] for row in runs.values()} == {"FINISHED"}
    assert runs["curate"]["inputs"][0][:2] == ("set", DATASET)
    assert runs["train base"]["output_models"] == [(BASE, 12)]
    assert runs["train refine"]["input_models"] == [BASE]
    assert runs["generate"]["input_models"] == sorted([BASE, REFINE])
    assert runs["train refine phase 2"]["tags"]["mlflow.parentRunId"] == "train refine"
    assert [step for step, _ in runs["train base"]["metrics"]["loss"]] == list(range(1, 13))
    assert set(runs["generate"]["files"]) == {"video/video.mp4"}
    stored = servers.objects.names()
    assert any(name.endswith("/video/video.mp4") for name in stored)
    assert any(name.endswith("/report.html") for name in stored)
    places = {"/data/set", "/data/latents", "/data/base/step-12", "/data/refine/step-12"}
    assert tracked_places.places_of(config) == places | {"/data/video.mp4"}


@pytest.mark.parametrize("job", ["curate", "train base", "train refine", "generate"])
def test_a_server_that_dies_in_the_middle_of_a_job_changes_nothing(
    job: str, servers: Servers, undisturbed: Any
) -> None:
    tracker = Tracker.open(TrackingConfig(servers.mlflow.uri, f"dies in {job}"))

    def kill(current: str) -> None:
        if current == job:
            servers.mlflow.kill()

    try:
        small_project(tracker, kill)  # its later jobs find no server at all
    finally:
        servers.mlflow.start()
    deadline_s = time.monotonic() + 120
    while not tracker.settle():
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    assert rows_of(tracker) == undisturbed


def test_values_that_a_database_refuses_are_recorded_all_the_same(servers: Servers) -> None:
    tracker = Tracker.open(TrackingConfig(servers.mlflow.uri, "values"))
    strange = "NUL \0, half \udcff, emoji \U0001f3ac"
    with tracker.run("curate", strange, {"a": strange}, {"b": strange}) as run:
        run.log_input_dataset(strange, "/d", DATASET, "output")
        run.log_metrics({"loss": float("nan"), "high": 1e308}, 1)
    (found,) = tracker.runs()
    assert (found.status, len(found.inputs)) == ("FINISHED", 1)
    assert found.params["a"] == found.tags["b"] == "NUL \ufffd, half ?, emoji \U0001f3ac"
