"""Answers, and the run that a page about one belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage import answers
from pipelines.lineage.page.answer_page import show_answer
from pipelines.lineage.tracked.runs_about import runs_about
from pipelines.lineage.tracking import Tracker
from tests.pipelines.lineage.conftest import Past


@pytest.fixture
def tracking(past: Past, tmp_path: Path) -> TrackingConfig:
    """Curation, base training with its phase, and a generation, as jobs record them."""
    config = TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db")
    tracker = Tracker.open(config)
    dataset = past.dataset
    tags = {"dataset.digest": dataset["digest"], "dataset.uri": dataset["uri"]}
    with tracker.run("curate", "dataset-a", {}, tags) as run:
        run.log_input_dataset("dataset", dataset["uri"], dataset["digest"], "output")
    with tracker.run("train_base", "train base", {}, {"dataset.digest": dataset["digest"]}) as run:
        run.log_output_model("base", past.base[1]["uri"], past.base[1]["digest"], 20, {})
    with tracker.run("generate", "video-x", {}, {"base.digest": past.base[1]["digest"]}):
        pass
    with tracker.run("curate", "something else", {}, {"dataset.digest": "0" * 32}):
        pass
    return config


def kinds(runs: list[dict[str, object]]) -> list[object]:
    return [run["kind"] for run in runs]


def test_runs_are_found_by_tags_inputs_and_checkpoints(
    past: Past, tracking: TrackingConfig
) -> None:
    assert kinds(runs_about(tracking, [past.dataset["digest"]])) == ["curate", "train_base"]
    assert kinds(runs_about(tracking, [past.base[1]["digest"]])) == ["train_base", "generate"]
    assert runs_about(tracking, ["f" * 32]) == runs_about(tracking, []) == []


def test_asking_makes_no_store(tmp_path: Path) -> None:
    config = TrackingConfig(f"sqlite:///{tmp_path}/none.db")
    assert runs_about(config, ["0" * 32]) == []
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("kind", "of", "home"),
    [
        ("dataset", "dataset-a", "curate"),
        ("source", "footage/alpha.mp4", "curate"),
        ("checkpoint", "base-x", "train_base"),
    ],
)
def test_a_page_lies_beside_the_run_it_is_about(
    past: Past, tracking: TrackingConfig, tmp_path: Path, kind: str, of: str, home: str
) -> None:
    where = [str(past.root / of)]
    question = answers.Question(kind, where, [str(past.root)], tracking, shown=5)
    found = answers.answer(question)
    assert "train_base" in kinds(found.report["runs"])
    page = tmp_path / "page.html"
    run_id = show_answer(question, found, page)
    (run,) = [run for run in Tracker.open(tracking).runs() if run.run_id == run_id]
    assert run.kind == home
    (attached,) = (tmp_path / "mlflow-artifacts").rglob("lineage/page.html")
    assert attached.read_bytes() == page.read_bytes() and run_id in str(attached)


def test_clean_checkpoints_do_not_bring_their_runs(past: Past) -> None:
    report = {"checkpoints": [{"digest": "saw"}], "clean_checkpoints": [{"digest": "clean"}]}
    assert answers.digests_in(report) == {"saw"}


def test_a_page_without_a_run_is_a_file_alone(past: Past, tmp_path: Path) -> None:
    question = answers.Question("dataset", [past.dataset["uri"]], [str(past.root)])
    found = answers.answer(question)
    assert show_answer(question, found, tmp_path / "page.html") is None
    assert (tmp_path / "page.html").is_file() and "runs" not in found.report
