"""Where runs say that outputs lie, what was taken down, and who is marked for it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage import catalog
from pipelines.lineage.tracked import places as tracked_places
from pipelines.lineage.tracked.records import TAKEDOWN_URI_TAG
from pipelines.lineage.tracking import Tracker
from tests.conftest import REPOSITORY
from tests.pipelines.lineage.conftest import Past
from tests.pipelines.lineage.tracked.tracked_rows import client_of
from tests.pipelines.lineage.tracked.tracking_jobs import DIGEST, OTHER, record_a_past


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def project() -> str:
    return f"project {uuid.uuid4().hex[:8]}"


def test_checkpoints_that_saw_what_was_taken_down_are_marked(database: str, project: str) -> None:
    tracker, base, _, _ = record_a_past(database, project)
    rows = [
        {"digest": OTHER, "uri": "/data/checkpoints/step-1200", "clips_seen": 3},
        {"digest": "ee" * 16, "uri": "/never/recorded/step-1", "clips_seen": 9},
    ]
    made_by = tracker.mark_tainted(rows, DIGEST, {"/data/checkpoints": 800})
    assert made_by == [base.run_id]
    wanted = {
        "takedown.digest": DIGEST,
        "takedown.clips": "3",
        "takedown.last_clean_step": "800",
    }
    (model,) = tracker.models()
    (run,) = [one for one in tracker.runs() if one.run_id == base.run_id]
    assert wanted.items() <= model.tags.items() and wanted.items() <= run.tags.items()


def test_takedowns_are_named_and_pages_join_their_run(
    database: str, project: str, tmp_path: Path
) -> None:
    config = TrackingConfig(database, project)
    tracker = Tracker.open(config)
    tags = {"dataset.uri": "/old", TAKEDOWN_URI_TAG: "/new"}
    with tracker.run("takedown", "x", {}, tags) as run:
        run.log_input_dataset("dataset", "/older", DIGEST, "takedown")
    with tracker.run("curate", "no takedown", {}, {"dataset.uri": "/other"}):
        pass
    assert tracker.takedowns() == tracked_places.takedowns_of(config) == ["/new"]
    assert tracked_places.places_of(config) == tracker.places() == {"/old", "/older", "/other"}
    page = tmp_path / "trace.html"
    page.write_text("<p>page</p>")
    tracker.log_page(run.run_id, page, "trace")
    page.unlink()
    client = client_of(tracker)
    assert [f.path for f in client.list_artifacts(run.run_id, "trace")] == ["trace/trace.html"]


def test_places_of_other_projects_and_of_deleted_runs_are_not_ours(
    database: str, project: str
) -> None:
    config = TrackingConfig(database, project)
    tracker = Tracker.open(config)
    with tracker.run("curate", "x", {}, {"dataset.uri": "/mine"}):
        pass
    with tracker.run("curate", "y", {}, {"dataset.uri": "/gone"}) as gone:
        pass
    client_of(tracker).delete_run(gone.run_id)
    assert tracked_places.places_of(config) == {"/mine"}
    assert tracked_places.places_of(TrackingConfig(database, "another")) == set()
    assert tracked_places.places_of(TrackingConfig(database, enabled=False)) == set()


def test_places_are_found_without_the_heavy_libraries(database: str, project: str) -> None:
    with Tracker.open(TrackingConfig(database, project)).run(
        "curate", "x", {}, {"dataset.uri": "/d"}
    ):
        pass
    code = (
        "import sys; from pipelines.config import TrackingConfig as T\n"
        "from pipelines.lineage.tracked.places import places_of, takedowns_of\n"
        f"config = T({database!r}, {project!r}); print(places_of(config), takedowns_of(config))\n"
        "assert not {'mlflow', 'pyarrow', 'pandas', 'numpy', 'fsspec'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout.split()) == (0, [b"{'/d'}", b"[]"]), done.stderr


def test_a_file_with_other_tables_is_asked_through_the_client(tmp_path: Path) -> None:
    """An older MLflow's tables, or none yet: the client makes them as it needs them."""
    (tmp_path / "mlflow.db").touch()
    config = TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db")
    assert tracked_places.places_of(config) == set()
    assert (tmp_path / "mlflow.db").stat().st_size > 0


def test_traces_find_outputs_through_the_tracked_runs(
    database: str, project: str, past: Past
) -> None:
    config = TrackingConfig(database, project)
    two = past.base[1]
    tags = {"dataset.uri": past.dataset["uri"]}
    with Tracker.open(config).run("train_base", "base", {}, tags) as run:
        run.log_output_model("base", two["uri"], two["digest"], 20, {})
    known = catalog.build((), tracked_places.places_of(config))
    assert [entry.uri for entry in known.of("dataset")] == [past.dataset["uri"]]
    # The earlier step was never recorded, and is needed to count what the later one saw.
    assert [entry.step for entry in known.of("checkpoint")] == [10, 20]
