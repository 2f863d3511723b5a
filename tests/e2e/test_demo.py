"""The whole way, as a newcomer goes it: footage to refined video through `ray job submit`."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from pipelines.media import probe
from pipelines.records import Clip, Source, from_table
from pipelines.storage import sha256_of_file
from tests.conftest import DEMO_ARGUMENTS, Demo, run_job

pytestmark = pytest.mark.slow

RESULT_KEYS = {
    *("dataset", "latents", "base", "refine", "video", "report", "lineage"),
    *("tracking_uri", "seconds"),
}
JOBS = (
    "curate the footage",
    "encode latents, base stage",
    "encode latents, refine stage",
    "train the base stage",
    "train the refinement stage",
    "generate a video",
)


def sources_of(demo: Demo) -> list[Source]:
    return from_table(Source, pq.read_table(demo.dataset / "sources.parquet"))


def clips_of(demo: Demo) -> list[Clip]:
    return from_table(Clip, pq.read_table(demo.dataset / "clips.parquet"))


def test_it_ends_with_one_json_object_and_what_it_names_exists(demo: Demo) -> None:
    assert set(demo.result) >= RESULT_KEYS
    for name in ("dataset", "base", "refine", "video", "report", "lineage"):
        assert Path(demo.result[name]).exists(), name
    assert demo.result["tracking_uri"] == f"sqlite:///{demo.out}/mlflow.db"


def test_each_job_has_one_line_that_a_person_can_read(demo: Demo) -> None:
    lines = demo.err.splitlines()
    for number, title in enumerate(JOBS, start=1):
        (line,) = [text for text in lines if text.startswith(f"[{number}/{len(JOBS)}] {title}")]
        assert line.endswith(" s") or " min " in line
    assert any(line.startswith("report") for line in lines)
    assert "Traceback" not in demo.err


def test_it_stops_what_it_started(demo: Demo) -> None:
    mine = str(demo.out)
    left = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if mine in words and "pytest" not in words:
            left.append(words)
    assert left == []


def test_every_input_file_has_a_row(demo: Demo) -> None:
    """By content: equal files share a row, and every path is in some row's uris."""
    files = {path for path in demo.footage.rglob("*") if path.is_file()}
    sources = sources_of(demo)
    assert sum(len(s.uris) for s in sources) == len(files)
    ids = {s.source_id for s in sources}
    for path in files:
        if path.stat().st_size:
            assert sha256_of_file(path)[:32] in ids, path
    assert all((s.reason is None) == (s.status == "ok") for s in sources)
    assert {s.status for s in sources} == {"ok", "failed"}


def test_every_shot_has_a_verdict_and_the_shots_tile_their_source(demo: Demo) -> None:
    clips, sources = clips_of(demo), {s.source_id: s for s in sources_of(demo)}
    assert len({c.clip_id for c in clips}) == len(clips)
    for clip in clips:
        assert clip.verdict in ("kept", "dropped")
        assert (clip.reason is None) == (clip.verdict == "kept")
        assert (clip.shard is not None) == (clip.verdict == "kept")
    for source_id, source in sources.items():
        shots = sorted((c for c in clips if c.source_id == source_id), key=lambda c: c.start_frame)
        assert bool(shots) == (source.status == "ok")
        for before, after in itertools.pairwise(shots):
            assert before.end_frame == after.start_frame
        if shots and shots[0].kind == "video":
            assert shots[0].start_frame == 0
            assert shots[-1].end_frame == source.num_frames


def test_the_shards_hold_every_kept_clip_once_as_their_index_says(demo: Demo) -> None:
    index = pq.read_table(demo.dataset / "shards.parquet").to_pylist()
    assert {row["shard"] for row in index} == {p.name for p in (demo.dataset / "shards").iterdir()}
    kept = {c.key: c for c in clips_of(demo) if c.verdict == "kept"}
    seen: list[str] = []
    for row in index:
        path = demo.dataset / "shards" / row["shard"]
        assert (path.stat().st_size, sha256_of_file(path)) == (row["bytes"], row["sha256"])
        with tarfile.open(path) as tar:
            keys = {name.split(".")[0] for name in tar.getnames()}
        assert len(keys) == row["samples"] > 0
        seen += keys
    assert sorted(seen) == sorted(kept)


def test_plain_webdataset_reads_the_shards(demo: Demo) -> None:
    import webdataset as wds

    kept = {c.key: c for c in clips_of(demo) if c.verdict == "kept"}
    shards = sorted(str(p) for p in (demo.dataset / "shards").iterdir())
    samples = list(wds.WebDataset(shards, shardshuffle=False))
    assert {s["__key__"] for s in samples} == set(kept)
    for sample in samples:
        clip = kept[sample["__key__"]]
        assert sample["txt"].decode() == clip.caption
        assert json.loads(sample["json"])["clip_id"] == clip.clip_id
        assert ("mp4" in sample) == (clip.kind == "video")


def test_the_datasets_library_reads_the_shards(demo: Demo) -> None:
    import datasets

    shards = sorted(str(p) for p in (demo.dataset / "shards").iterdir())
    rows = datasets.load_dataset(
        "webdataset", data_files={"train": shards}, split="train", streaming=True
    )
    rows = rows.select_columns(["__key__", "txt"])
    assert {row["__key__"] for row in rows} == {
        c.key for c in clips_of(demo) if c.verdict == "kept"
    }


def test_diffusers_loads_the_base_checkpoint(demo: Demo) -> None:
    import torch
    from diffusers import I2VGenXLUNet

    from model.unet import VideoUNet

    theirs = I2VGenXLUNet.from_pretrained(demo.result["base"], subfolder="unet")
    ours = VideoUNet.load(Path(demo.result["base"]) / "unet")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name


def test_the_video_plays_and_says_what_made_it(demo: Demo) -> None:
    info = probe(demo.result["video"])
    assert (info.width_px, info.height_px) == (320, 180)
    assert info.num_frames == 16
    record = json.loads(Path(demo.result["video"]).with_suffix(".json").read_text())
    assert record["settings"]["prompt"].startswith("a")  # one word of the command line, unquoted
    assert set(record["checkpoints"]) == {"base", "refine"}


def test_the_runs_are_linked_from_footage_to_video(demo: Demo) -> None:
    """curate -> latents -> base -> refine -> video, as MLflow itself tells it."""
    import mlflow

    client = mlflow.MlflowClient(demo.result["tracking_uri"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "i2vgen-ray"]
    found = client.search_runs([experiment.experiment_id])
    runs = [client.get_run(run.info.run_id) for run in found]  # a search leaves out model inputs
    assert {r.info.status for r in runs} == {"FINISHED"}
    by_kind: dict[str, list] = {}
    for run in runs:
        by_kind.setdefault(run.data.tags["i2vgen.kind"], []).append(run)
    assert {k: len(v) for k, v in by_kind.items()} == {
        "curate": 1,
        "encode": 2,
        "train_base": 1,
        "train_refine": 1,
        "phase": 3,  # one of the base stage, two of the refinement
        "generate": 1,
    }
    jobs_of_phases = {run.data.tags["mlflow.parentRunId"] for run in by_kind["phase"]}
    trainings = by_kind["train_base"] + by_kind["train_refine"]
    assert jobs_of_phases == {run.info.run_id for run in trainings}
    dataset = json.loads((demo.dataset / "dataset.json").read_text())["digest"]
    (curate,) = by_kind["curate"]
    assert curate.data.tags["dataset.digest"] == dataset
    for run in by_kind["encode"]:
        assert dataset in {i.dataset.digest for i in run.inputs.dataset_inputs}
    latents = {r.data.tags["latents.digest"] for r in by_kind["encode"]}
    (base,), (refine,) = by_kind["train_base"], by_kind["train_refine"]
    for run in (base, refine):
        assert {i.dataset.digest for i in run.inputs.dataset_inputs} & latents
    made_by_base = {o.model_id for o in base.outputs.model_outputs}
    made_by_refine = {o.model_id for o in refine.outputs.model_outputs}
    assert {i.model_id for i in refine.inputs.model_inputs} <= made_by_base
    assert refine.inputs.model_inputs
    (video,) = by_kind["generate"]
    used = {i.model_id for i in video.inputs.model_inputs}
    assert used & made_by_base and used & made_by_refine
    artifacts = {a.path for a in client.list_artifacts(curate.info.run_id)}
    assert "report.html" in artifacts


def test_doing_it_again_makes_nothing_again(demo: Demo) -> None:
    before = {p: p.stat().st_mtime_ns for p in demo.out.rglob("*.tar")}
    ended = run_job("jobs/demo.py", "--out", demo.out, *DEMO_ARGUMENTS)
    assert ended.code == 0, ended.err[-2000:]
    assert ended.err.count("already done") == len(JOBS)
    assert {p: p.stat().st_mtime_ns for p in demo.out.rglob("*.tar")} == before
    assert ended.result["dataset"] == demo.result["dataset"]
