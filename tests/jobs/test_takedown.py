"""`jobs/takedown.py` as a user runs it, recorded in MLflow."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import TrackingConfig
from pipelines.lineage.manifest import check_dataset, read_dataset
from pipelines.lineage.tracking import Tracker
from tests.conftest import run_job
from tests.pipelines.lineage.conftest import Past, past

__all__ = ["past"]


def test_a_list_is_taken_out_and_who_saw_it_is_said(past: Past, tmp_path: Path) -> None:
    listed, out = tmp_path / "remove.txt", past.root / "dataset-b"
    listed.write_text(f"# consent withdrawn\n{past.root / 'footage' / 'beta film.mp4'}\n")
    tracking = TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db")
    with Tracker.open(tracking).run("train_base", "base", {}, {}) as training:
        training.log_output_model("base", past.base[1]["uri"], past.base[1]["digest"], 20, {})
    arguments = ("--dataset", past.dataset["uri"], "--list", listed, "--out", out)

    dry = run_job("jobs/takedown.py", *arguments, "--dry-run", "--tracking.uri", tracking.uri)
    assert dry.code == 0 and "would take" in dry.err and not out.exists()

    ended = run_job("jobs/takedown.py", *arguments, "--tracking.uri", tracking.uri)
    assert ended.code == 0, ended.err
    result = ended.result
    assert (result["removed"], result["kept"], result["clips"]) == (3, 6, 12)
    assert result["checkpoints"] == [past.base[1]["uri"], past.refine["uri"]]
    assert result["runs"] == [training.run_id]
    assert "last clean checkpoint" in ended.err
    after = read_dataset(str(out))
    assert after.digest == result["digest"] and check_dataset(after.uri) == []
    run = Tracker.open(tracking).runs()[0]
    assert (run.kind, run.tags["dataset.digest"]) == ("takedown", after.digest)
    assert {edge.digest for edge in run.inputs} == {after.digest, past.dataset["digest"]}

    again = run_job("jobs/takedown.py", *arguments, "--tracking.enabled", "false")
    assert again.code == 2 and "complete" in again.err


def test_a_name_that_is_not_there_stops_everything(past: Past, tmp_path: Path) -> None:
    listed, out = tmp_path / "remove.txt", past.root / "dataset-b"
    listed.write_text("alpha.mp4\nnot-in-the-set.mp4\n")
    ended = run_job(
        "jobs/takedown.py",
        *("--dataset", past.dataset["uri"], "--list", listed, "--out", out),
        *("--tracking.enabled", "false"),
    )
    assert ended.code == 2 and "not-in-the-set.mp4" in ended.err and not out.exists()
