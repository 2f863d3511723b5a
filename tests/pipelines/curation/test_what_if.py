"""Judging stored rows again; on real datasets in tests/jobs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import RequestError, config_hash
from pipelines.curation.config import CurateConfig, result_settings
from pipelines.curation.cuts import cut_counts
from pipelines.curation.phash import clip_hash
from pipelines.curation.publish import dataset_manifest
from pipelines.curation.what_if import (
    UNKNOWN,
    answer,
    differs,
    read_clips,
    read_question,
    rejudged,
)
from pipelines.curation.what_if_text import funnel, result_of, table_of
from pipelines.lineage.manifest import (
    CLIPS_TABLE,
    DATASET_FILE,
    SHARDS_TABLE,
    SOURCES_TABLE,
    read_dataset,
)
from pipelines.lineage.tombstones import TOMBSTONE_SCHEMA, TOMBSTONES_TABLE
from pipelines.records import Clip, Shard, Source, to_table
from pipelines.storage import Store
from tests.pipelines.curation.clips_of import a_clip

CONFIG = CurateConfig()


def captioned(number: int, **changes: Any) -> Clip:
    vector = np.zeros(16)
    vector[number % 16] = 1.0
    seen: dict[str, Any] = {
        "caption": f"some thing {number}",
        "short_caption": "thing",
        "captioner": "c",
        "clip_score": 0.25,
        "embedding": list(vector),
        "phash": clip_hash(np.random.default_rng(number).integers(0, 256, (8, 32, 32), np.uint8)),
        "motion": 0.1,
    }
    return a_clip(number, **{**seen, **changes})


def finished(clips: list[Clip]) -> list[Clip]:
    """As curation would have left them under CONFIG."""
    return [
        dataclasses.replace(c, content_sha256="0" * 64 if c.verdict == "kept" else None)
        for c in rejudged(clips, CONFIG)
    ]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Six good clips; one is a copy of another, one too short, one without words, one with a
    single word, one uncut."""
    clips = [captioned(i) for i in range(6)]
    clips.append(captioned(20, phash=clips[0].phash, embedding=clips[0].embedding, sharpness=0.3))
    clips[0] = dataclasses.replace(clips[0], sharpness=0.9)
    clips.append(a_clip(21, end_frame=20, motion=0.1))
    unsaid: dict[str, Any] = {"embedding": None, "clip_score": None}
    clips.append(captioned(22, caption=None, short_caption=None, **unsaid))
    clips.append(captioned(24, caption="thing", **unsaid))
    clips.append(captioned(23, verdict="dropped", reason_stage="cuts", reason="cut_failed"))
    store = Store.open(str(tmp_path / "set"))
    clips = finished(clips)
    source = Source("s" * 32, ["a.mp4"], 5, duration_s=7200.0)
    store.write_table(CLIPS_TABLE, to_table(Clip, clips))
    store.write_table(SOURCES_TABLE, to_table(Source, [source]))
    store.write_table(SHARDS_TABLE, to_table(Shard, []))
    store.write_json(DATASET_FILE, dataset_manifest(store, CONFIG, cut_counts(())))
    return tmp_path / "set"


def asked(dataset: Path, *argv: str) -> tuple[Any, Any]:
    question = read_question(["--dataset", str(dataset), *argv])
    return question, answer(question)


def test_with_nothing_changed_every_verdict_is_the_same(dataset: Path) -> None:
    question, found = asked(dataset)
    assert question.changed == {} and found.notes == []
    assert not any(differs(a, b) for a, b in zip(found.now, found.then, strict=True))
    reasons = {c.reason for c in found.now}
    assert reasons == {
        *(None, "duplicate", "too_short", "caption_empty", "caption_short", "cut_failed")
    }
    said = result_of(question, found, 0.1)
    assert (said["clips"], said["kept"], said["dropped"]) == (11, 6, 5)
    assert said["what_if"]["kept"] == 6 and said["what_if"]["unknown"] == 0


def test_what_no_model_saw_is_unknown_and_not_kept(dataset: Path) -> None:
    question, found = asked(dataset, "--limits.min_duration_s", "0.5")
    (unknown,) = [c for c in found.then if c.verdict == UNKNOWN]
    assert unknown.reason is None and unknown.tiers == []
    said = result_of(question, found, 0.1)["what_if"]
    assert (said["kept"], said["dropped"], said["unknown"]) == (6, 4, 1)
    assert said["examples"]["cannot_tell"] == [f"{unknown.clip_id} (was too_short)"]
    assert said["stages"]["limits"] == [10, 11] and said["stages"]["unknown"] == [10, 10]
    assert "not captioned" in found.notes[0] and "not captioned" in table_of(question, found)


def test_words_that_now_pass_were_not_scored(dataset: Path) -> None:
    question, found = asked(dataset, "--captions.min_words", "1", "--nsfw.max_score", "0.3")
    said = result_of(question, found, 0.1)["what_if"]
    assert (said["kept"], said["unknown"]) == (6, 1)
    assert any("6 kept clips have no nsfw" in note for note in found.notes)


def test_duplicates_and_tiers_are_decided_again(dataset: Path) -> None:
    changes = ("--duplicates.enabled", "false", "--tiers.high_res_width_px", "4000")
    question, found = asked(dataset, *changes)
    said = result_of(question, found, 0.1)["what_if"]
    assert said["kept"] == 7 and said["reasons"]["duplicate"] == (1, 0)
    assert said["tiers"]["high_res"] == (6, 0) and said["tiers"]["base"] == (6, 7)
    assert len(said["examples"]["would_come"]) == 1 and "1 clips would have to be cut" in "".join(
        found.notes
    )


def test_the_funnel_ends_with_what_is_kept(dataset: Path) -> None:
    _, found = asked(dataset, "--limits.min_duration_s", "3")
    steps = funnel(found)
    assert (steps[0].now.clips, steps[0].then.clips) == (11, 11)
    assert (steps[-1].now.clips, steps[-1].then.clips) == (6, 0)
    assert steps[0].now.hours == pytest.approx(10 * 2 / 3600 + 0.8 / 3600, abs=1e-4)


def test_what_was_taken_down_stays_down(dataset: Path) -> None:
    clips = read_clips(read_dataset(str(dataset)))
    original = next(c for c in clips if any(o.duplicate_of == c.clip_id for o in clips))
    gone = dataclasses.replace(
        original, verdict="dropped", reason_stage="takedown", reason="taken_down", tiers=[]
    )
    stored = [gone if c is original else c for c in clips]
    again = rejudged(stored, CONFIG)
    assert not any(differs(a, b) for a, b in zip(again, stored, strict=True))


def test_what_a_takedown_beside_it_names_is_left_out(dataset: Path) -> None:
    """Its clips, its copies, and in the new version whose rows no longer have their hashes."""
    clips = read_clips(read_dataset(str(dataset)))
    copy = next(c for c in clips if c.duplicate_of)
    original = next(c for c in clips if c.clip_id == copy.duplicate_of)
    frames = {n: getattr(original, n) for n in ("source_id", "clip_id", "start_frame", "end_frame")}
    rows = pa.Table.from_pylist([{**frames, "from_digest": "d"}], schema=TOMBSTONE_SCHEMA)
    Store(str(dataset.parent / "down")).write_table(TOMBSTONES_TABLE, rows)
    _, found = asked(dataset)
    changed = [(a, b) for a, b in zip(found.now, found.then, strict=True) if differs(a, b)]
    assert [(a.clip_id, b.reason_stage) for a, b in changed] == [(original.clip_id, "takedown")]
    assert found.notes == ["1 clips were taken down since: a curation would leave them out"]

    scrubbed = [
        dataclasses.replace(b, phash=None, caption=None, embedding=None)
        if b.clip_id == original.clip_id
        else b
        for b in found.then
    ]
    Store(str(dataset)).write_table(CLIPS_TABLE, to_table(Clip, scrubbed))
    Store(str(dataset)).write_table(TOMBSTONES_TABLE, rows)
    shutil.rmtree(dataset.parent / "down")
    question, found = asked(dataset)
    assert found.notes == [] and len(question.own) == 1
    assert not any(differs(a, b) for a, b in zip(found.now, found.then, strict=True))


@pytest.mark.parametrize(
    "given",
    [
        ("--watch.analysis_px", "100"),
        ("--captions.backend", "sidecar"),
        ("--clip_score.model", "ViT-H-14"),
        ("--cuts.crf", "30"),
        ("--shards.max_samples", "3"),
    ],
)
def test_what_needs_the_footage_or_a_model_is_refused(
    dataset: Path, given: tuple[str, str]
) -> None:
    with pytest.raises(RequestError, match=f"{given[0][2:]} cannot be answered"):
        asked(dataset, *given)
    recorded = str(result_settings(CONFIG)["limits"]["min_duration_s"])
    assert asked(dataset, "--limits.min_duration_s", recorded)[0].changed == {}


def test_a_missing_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not found"):
        read_question(["--dataset", str(tmp_path / "none")])
    with pytest.raises(RequestError, match="needs the --dataset"):
        read_question(["--limits.min_duration_s", "3"])


def test_nothing_is_written(dataset: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in sorted(dataset.parent.rglob("*"))}
    asked(dataset, "--limits.min_duration_s", "3")
    assert {p: p.stat().st_mtime_ns for p in sorted(dataset.parent.rglob("*"))} == before
    assert (
        config_hash(result_settings(CONFIG)) == read_dataset(str(dataset)).manifest["config_hash"]
    )
