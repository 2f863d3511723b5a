"""The curation job on a small generated world, with a real Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from jobs.curate import main
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig, RequestError, TrackingConfig
from pipelines.decisions import failure, measured, outcomes
from pipelines.footage import write_world
from pipelines.lineage.tracking import Tracker
from pipelines.lineage.wholeness import check_dataset
from pipelines.records import REASONS
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

SAME_BYTES = ("dataset.json", "clips.parquet", "sources.parquet", "shards.parquet")


@dataclass(frozen=True)
class Made:
    folder: Path
    result: dict[str, Any]

    def rows(self, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / table).to_pylist()


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with connect(ClusterConfig(address="local", num_cpus=2)):
        yield


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_world(folder, preset="small", real_clips=False)
    return folder


def curated(footage: Path, dataset: Path, *arguments: str) -> Made:
    result = main(["--footage", str(footage), "--dataset", str(dataset), *arguments])
    assert result is not None
    return Made(dataset, result)


@pytest.fixture(scope="module")
def made(ray_here: None, footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return curated(footage, tmp_path_factory.mktemp("made") / "set")


def test_every_file_is_in_the_sources_once(made: Made, footage: Path) -> None:
    files = {str(p.relative_to(footage)) for p in footage.rglob("*") if not p.is_dir()}
    named = [uri for row in made.rows("sources.parquet") for uri in row["uris"]]
    assert sorted(named) == sorted(files)
    for row in made.rows("sources.parquet"):
        assert (row["status"], row["reason"] is None) in {("ok", True), ("failed", False)}
        assert row["reason"] is None or row["reason"] in REASONS


def test_shots_tile_their_source_and_every_dropped_one_has_a_reason(made: Made) -> None:
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in made.rows("clips.parquet"):
        by_source.setdefault(row["source_id"], []).append(row)
        if row["verdict"] == "kept":
            assert row["caption"] and row["shard"] and row["key"] and row["content_sha256"]
            assert row["reason"] is None and "base" in row["tiers"]
        else:
            assert row["verdict"] == "dropped"
            assert row["reason_stage"] and row["reason"] in REASONS
            assert row["shard"] is None and row["tiers"] == []
    frames = {r["source_id"]: r["num_frames"] for r in made.rows("sources.parquet")}
    for source_id, rows in by_source.items():
        rows.sort(key=lambda r: r["shot_index"])
        edges = [0, *(r["end_frame"] for r in rows)]
        assert [r["start_frame"] for r in rows] == edges[:-1]
        if rows[0]["kind"] == "video":
            assert edges[-1] == frames[source_id]


def test_the_recorded_decisions_explain_every_verdict(made: Made) -> None:
    """Recomputed from the rows and the limits in dataset.json, for what is a number."""
    decisions = json.loads((made.folder / "dataset.json").read_text())["decisions"]
    explained: Counter[str] = Counter()
    for row in made.rows("clips.parquet"):
        found = outcomes(decisions, row)
        assert ("failed" in found) == (row["verdict"] == "dropped")
        for decision, outcome in zip(decisions, found, strict=True):
            if outcome == "passed":
                assert failure(decision, row) is None
            if outcome == "failed" and measured(decision, row) is not None:
                is_number = decision["column"] not in ("license", "caption", "duplicate_of")
                assert failure(decision, row) == (row["reason"] if is_number else None)
                explained[row["reason"]] += is_number
    assert len(explained) >= 3


def test_the_dataset_is_whole_and_loads_with_plain_webdataset(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webdataset as wds

    assert check_dataset(str(made.folder)) == []
    # As in an outside reader's process: under WDS_SECURE webdataset opens no local path at all.
    monkeypatch.setattr("webdataset.utils.enforce_security", False)
    kept = {r["key"]: r for r in made.rows("clips.parquet") if r["verdict"] == "kept"}
    shards = sorted(str(p) for p in (made.folder / "shards").glob("*.tar"))
    samples = list(wds.WebDataset(shards, shardshuffle=False).decode())
    assert Counter(s["__key__"] for s in samples) == Counter(list(kept))
    for sample in samples:
        row = kept[sample["__key__"]]
        assert sample["txt"] == row["caption"] == sample["json"]["caption"]
        assert ("mp4" in sample) == (row["kind"] == "video")


def test_the_result_says_what_was_made(made: Made) -> None:
    result, clips = made.result, made.rows("clips.parquet")
    verdicts = Counter(r["verdict"] for r in clips)
    assert result["dataset"] == str(made.folder) and len(result["digest"]) == 32
    assert result["clips"] == len(clips) and result["kept"] == verdicts["kept"] > 0
    assert result["dropped"] == verdicts["dropped"] > 0
    assert result["sources"] == len(made.rows("sources.parquet")) and result["seconds"] > 0
    assert Path(result["report"]).read_text().startswith("<!doctype html>")


def test_the_run_is_recorded_with_the_dataset_as_its_output(made: Made) -> None:
    tracker = Tracker.open(TrackingConfig(uri=made.result["tracking_uri"]))
    (run,) = [r for r in tracker.runs() if r.run_id == made.result["run_id"]]
    assert run.kind == "curate"
    assert run.tags["dataset.digest"] == made.result["digest"]
    assert run.tags["dataset.uri"] == made.result["dataset"]


def test_a_complete_dataset_is_left_alone(made: Made, footage: Path) -> None:
    with pytest.raises(RequestError, match=f"already complete, digest {made.result['digest']}"):
        curated(footage, made.folder)


def assert_same(one: Path, other: Path) -> None:
    shards = sorted(p.name for p in (one / "shards").iterdir())
    assert shards == sorted(p.name for p in (other / "shards").iterdir())
    for name in [*SAME_BYTES, *(f"shards/{s}" for s in shards)]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_equal_footage_elsewhere_watched_in_parts_gives_the_same_bytes(
    made: Made, footage: Path, tmp_path: Path
) -> None:
    shutil.copytree(footage, tmp_path / "moved")
    in_parts = ("--resources.part_s", "2", "--resources.part_min_mib", "0")
    again = curated(tmp_path / "moved", tmp_path / "set", "--resources.actor_cpus", "0", *in_parts)
    assert again.result["digest"] == made.result["digest"]
    assert_same(made.folder, again.folder)


def started(footage: Path, dataset: Path) -> subprocess.Popen[bytes]:
    """The job in a process of its own, with a Ray of its own."""
    command = [sys.executable, "jobs/curate.py", "--footage", str(footage)]
    command += ["--dataset", str(dataset), "--tracking.enabled", "false"]
    return subprocess.Popen(
        [*command, "--cluster.num_cpus", "2"],
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def assert_run_again_it_is_as_if_nothing_had_happened(
    made: Made, footage: Path, dataset: Path
) -> None:
    assert not (dataset / "dataset.json").exists()
    again = curated(footage, dataset, "--tracking.enabled", "false")
    assert again.result["digest"] == made.result["digest"]
    assert_same(made.folder, dataset)
    assert not list(dataset.rglob(".tmp-*"))


@pytest.mark.parametrize("stage", ["watch", "captions", "cuts"])
def test_killed_at_any_stage_and_run_again_it_is_as_if_nothing_had_happened(
    made: Made, footage: Path, tmp_path: Path, stage: str
) -> None:
    dataset = tmp_path / "set"
    job = started(footage, dataset)
    own = dataset if stage == "cuts" else tmp_path
    try:
        wait_for_a_commit(own / "_work" / stage, job)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert_run_again_it_is_as_if_nothing_had_happened(made, footage, dataset)


def kill_of(job: subprocess.Popen[bytes], *titles: str) -> int:
    """kill -9 of every process below the job whose command has the word; how many there were."""
    killed = 0
    for process in psutil.Process(job.pid).children(recursive=True):
        try:
            if any(title in " ".join(process.cmdline()) for title in titles):
                process.kill()
                killed += 1
        except psutil.NoSuchProcess:
            continue
    return killed


def end(job: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    """Ends the job and what Ray may have left behind of it."""
    job.kill()
    job.wait()
    for process in family:
        if process.is_running():
            process.kill()


@pytest.mark.parametrize("title", ["ray::Map", "child.serve"])
def test_workers_that_are_killed_are_replaced_and_change_nothing(
    made: Made, footage: Path, tmp_path: Path, title: str
) -> None:
    """`ray::Map` are Ray's tasks and actors, `child.serve` the processes that decode for them."""
    job = started(footage, tmp_path / "set")
    family: list[psutil.Process] = []
    try:
        wait_for_a_commit(tmp_path / "_work" / "watch", job)
        family = psutil.Process(job.pid).children(recursive=True)
        assert kill_of(job, title) > 0
        assert job.wait(400) == 0
    finally:
        end(job, family)
    assert_same(made.folder, tmp_path / "set")


def test_when_ray_s_head_is_killed_the_job_ends_and_goes_on_when_run_again(
    made: Made, footage: Path, tmp_path: Path
) -> None:
    job = started(footage, tmp_path / "set")
    family: list[psutil.Process] = []
    try:
        wait_for_a_commit(tmp_path / "_work" / "watch", job)
        family = psutil.Process(job.pid).children(recursive=True)
        assert kill_of(job, "gcs_server", "raylet/raylet") >= 2
        assert job.wait(300) != 0
    finally:
        end(job, family)
    assert_run_again_it_is_as_if_nothing_had_happened(made, footage, tmp_path / "set")


def wait_for_a_commit(folder: Path, job: subprocess.Popen[bytes], timeout_s: float = 400) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not list(folder.rglob("*.parquet")):
        assert job.poll() is None, "the job ended before it committed anything"
        assert time.monotonic() < deadline_s, f"no commit in {folder}"
        time.sleep(0.02)


def test_nothing_kept_is_said_aloud(
    ray_here: None, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = next(footage.rglob("film-0000.mp4"))
    (tmp_path / "one").mkdir()
    shutil.copy(film, tmp_path / "one")
    found = curated(tmp_path / "one", tmp_path / "set", "--limits.min_duration_s", "100")
    assert found.result["kept"] == 0 and found.result["clips"] == found.result["dropped"] > 0
    said = capsys.readouterr().err
    assert "NOTHING WAS KEPT" in said and f"too_short {found.result['clips']}" in said
    assert "Nothing was kept" in (found.folder / "report.html").read_text()
    assert check_dataset(str(found.folder)) == []


def test_a_dry_run_says_the_plan_and_writes_nothing(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--footage", str(footage), "--dataset", str(tmp_path / "set"), "--dry-run"]
    assert main(given) is None
    said = capsys.readouterr().err
    assert "coca:embedded" in said and "files" in said and "score workers" in said
    assert not (tmp_path / "set").exists()


def test_a_cluster_too_small_for_the_plan_is_refused(
    ray_here: None, footage: Path, tmp_path: Path
) -> None:
    arguments = ("--resources.caption_actors", "9", "--resources.actor_cpus", "1")
    with pytest.raises(RequestError, match=r"the cluster has 2; lower resources\.caption_actors"):
        curated(footage, tmp_path / "set", *arguments)
