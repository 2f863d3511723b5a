"""`jobs/takedown.py` as a user runs it, recorded in MLflow."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import TrackingConfig
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.tracking import Tracker
from pipelines.lineage.wholeness import check_dataset
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
    assert dry.code == 0 and not out.exists()
    assert "would take 3 kept clips (4 rows)" in dry.err and "of 3 shards" in dry.err

    ended = run_job("jobs/takedown.py", *arguments, "--tracking.uri", tracking.uri)
    assert ended.code == 0, ended.err
    result = ended.result
    assert (result["removed"], result["kept"], result["clips"]) == (3, 6, 12)
    assert result["checkpoints"] == [past.base[1]["uri"], past.refine["uri"]]
    assert result["runs"] == [training.run_id]
    assert "last clean checkpoint" in ended.err
    after = read_dataset(str(out))
    assert after.digest == result["digest"] and check_dataset(after.uri) == []
    runs = {run.kind: run for run in Tracker.open(tracking).runs()}
    run, taught = runs["takedown"], runs["train_base"]
    assert run.tags["dataset.digest"] == after.digest
    assert taught.tags["takedown.digest"] == after.digest
    assert (taught.tags["takedown.clips"], taught.tags["takedown.last_clean_step"]) == ("3", "10")
    assert result["last_clean"] == {
        str(past.root / "base-x"): 10,
        str(past.root / "refine-x"): None,
    }
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


def test_a_second_takedown_does_not_make_the_first_look_clean(past: Past, tmp_path: Path) -> None:
    tracking = TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db")
    with Tracker.open(tracking).run("train_base", "base", {}, {}) as training:
        training.log_output_model("base", past.base[1]["uri"], past.base[1]["digest"], 20, {})
    dataset = past.dataset["uri"]
    for number, name in enumerate(("alpha.mp4", "gamma.mp4")):
        listed, out = tmp_path / f"{number}.txt", past.root / f"without-{number}"
        listed.write_text(f"{name}\n")
        ended = run_job(
            "jobs/takedown.py",
            *("--dataset", dataset, "--list", listed, "--out", out),
            *("--tracking.uri", tracking.uri),
        )
        assert ended.code == 0, ended.err
        dataset = str(out)
    (taught,) = [run for run in Tracker.open(tracking).runs() if run.kind == "train_base"]
    assert taught.tags["takedown.digest"] == read_dataset(dataset).digest
    assert (taught.tags["takedown.clips"], taught.tags["takedown.last_clean_step"]) == ("3", "none")


def test_a_server_that_is_down_does_not_stop_a_takedown(past: Past, tmp_path: Path) -> None:
    listed, out = tmp_path / "remove.txt", past.root / "without"
    listed.write_text("beta film.mp4\n")
    ended = run_job(
        "jobs/takedown.py",
        *("--dataset", past.dataset["uri"], "--list", listed, "--out", out),
        *("--tracking.uri", "http://127.0.0.1:9"),
        I2VGEN_HOME=str(tmp_path / "home"),
    )
    assert ended.code == 0, ended.err
    assert "were not looked at" in ended.err
    assert ended.result["checkpoints"] == [past.base[1]["uri"], past.refine["uri"]]  # lie near it
    waiting = run_job("jobs/replay.py", "--dry-run", I2VGEN_HOME=str(tmp_path / "home"))
    assert waiting.result["waiting"] > 0
