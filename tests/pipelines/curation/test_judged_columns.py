"""What the driver decides on columns is what the same rules decide on clips at hand."""

from __future__ import annotations

import dataclasses
import hashlib
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.curation import mapped, publish
from pipelines.curation.committed import SourceCommits
from pipelines.curation.duplicates import drop_duplicates
from pipelines.curation.judged import CUT_FAILED, UNCUT, Judged, read_judged
from pipelines.curation.judged_parts import write_part
from pipelines.curation.prepared import work_of
from pipelines.curation.published import Outcome, clip_tables
from pipelines.curation.selection import select
from pipelines.curation.shard_plan import clips_of_shard, places_of, plan_of, shard_row
from pipelines.curation.shards import (
    Sample,
    ShardsConfig,
    offsets_of,
    plan_shards,
    shard_name,
)
from pipelines.curation.tiers import assign_tiers
from pipelines.curation.verdicts import TAKEN_DOWN, shadows_of
from pipelines.curation.work import Row, Work
from pipelines.lineage.manifest import CLIPS_TABLE, digest_of_clips
from pipelines.records import Clip, Source, from_table, to_table
from pipelines.storage import Store
from tests.benchmarks.scale_world import config_of, cuts_of_clips, made_up, media_of

SOURCES, IN_A_PART = 120, 16
SHARDS = ShardsConfig(max_samples=7)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    config = dataclasses.replace(config_of(tmp_path), shards=SHARDS)
    return work_of(config, Store.open(config.dataset))


def world(work: Work, count: int = SOURCES) -> Iterator[tuple[Source, list[Clip]]]:
    """Judged clips in order of source: copies, stills, small ones, dropped ones, one taken down."""
    for source, clips, said in sorted(map(made_up, range(count)), key=lambda m: m[0].source_id):
        captions = {clip_id: row["text"] + " größer" for clip_id, row in said.items()}
        scores = {(i, captions[i]): said[i] for i in captions}
        number = int(source.source_id[:4], 16)
        changed = [_varied(clip, number) for clip in clips]
        judged = SourceCommits(source, changed, captions, scores).judged(work)
        if number % 11 == 0:
            stage, reason = TAKEN_DOWN
            judged = [c.dropped(stage, reason) for c in judged]
        yield source, judged


def _varied(clip: Clip, number: int) -> Clip:
    changes: dict[str, Any] = {}
    if number % 5 == 0:
        changes = {"kind": "image", "motion": None, "end_s": clip.start_s}
    if number % 3 == 0:
        changes |= {"crop_w_px": 300, "crop_h_px": 170}
    return dataclasses.replace(clip, **changes)


def written(work: Work, found: Sequence[tuple[Source, list[Clip]]], failed: set[str]) -> Judged:
    """The columns, after the parts were written: every second clip was cut before."""
    names, late = [], []
    for first in range(0, len(found), IN_A_PART):
        some = found[first : first + IN_A_PART]
        clips = [clip for _, of_source in some for clip in of_source]
        cuts = {row["clip_id"]: _cut(row, failed) for row in cuts_of_clips(clips)}
        before = {clip_id: cut for clip_id, cut in cuts.items() if int(clip_id[:2], 16) % 2}
        late += [cut for clip_id, cut in cuts.items() if clip_id not in before]
        names.append(f"{first:06d}")
        write_part(work, names[-1], [source for source, _ in some], clips, before)
    judged = read_judged(work, names)
    place = {bytes(judged.ids_NB[i]).hex(): i for i in range(len(judged))}
    assert (judged.cut_state_N[[place[cut["clip_id"]] for cut in late]] == UNCUT).all()
    for cut in late:
        judged.learn_cut(place[cut["clip_id"]], cut)
    return judged


def _cut(row: Row, failed: set[str]) -> Row:
    if row["clip_id"] not in failed:
        return row
    return {**dict.fromkeys(row), "clip_id": row["clip_id"], "failed": "cut_failed"}


def expected(work: Work, clips: Sequence[Clip], failed: set[str]) -> list[Clip]:
    """As the same rules decide on clips."""
    cut = [c.dropped("cuts", "cut_failed") if c.clip_id in failed else c for c in clips]
    shadows = shadows_of(clips, work.config)
    chosen = assign_tiers(drop_duplicates(cut, work.config.duplicates, shadows), work.config.tiers)
    return [_as_published(c) for c in chosen]


def _as_published(clip: Clip) -> Clip:
    if clip.verdict == "kept":
        sha256 = hashlib.sha256(media_of(clip)).hexdigest()
        return dataclasses.replace(clip, content_sha256=sha256)
    if clip.reason == TAKEN_DOWN[1]:
        return dataclasses.replace(clip, phash=None, duplicate_of=None)
    return clip


@pytest.mark.parametrize("small_bytes", [mapped.SMALL_BYTES, 1])
def test_the_same_clips_are_kept_for_the_same_and_lie_in_the_same_places(
    work: Work, small_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every column lies in a file."""
    monkeypatch.setattr(mapped, "SMALL_BYTES", small_bytes)
    monkeypatch.setattr(mapped, "ROWS_AT_ONCE", 17 if small_bytes == 1 else mapped.ROWS_AT_ONCE)
    found = list(world(work))
    clips = [clip for _, of_source in found for clip in of_source]
    failed = {c.clip_id for c in clips if c.verdict == "kept" and int(c.clip_id[:4], 16) % 13 == 0}
    judged = written(work, found, failed)
    assert (judged.cut_state_N == CUT_FAILED).sum() == len(failed) > 0
    wanted = expected(work, clips, failed)
    reasons = {c.reason for c in wanted}
    assert {None, "duplicate", "cut_failed", "taken_down"} <= reasons
    assert {tuple(c.tiers) for c in wanted} >= {(), ("base",), ("base", "high_res", "premium")}

    selection = select(work, judged)
    plan = plan_of(judged, selection, SHARDS)
    planned = plan_shards(
        [Sample(c, len(media_of(c))) for c in wanted if c.verdict == "kept"], SHARDS
    )
    assert plan.num_shards == len(planned) > 3
    placed = {s.clip.clip_id: s.clip for shard in planned for s in shard.samples}

    rows = [
        row
        for t in clip_tables(work, Outcome.of(judged, selection, plan))
        for row in from_table(Clip, t)
    ]
    assert [_plain(row) for row in rows] == [_plain(placed.get(c.clip_id, c)) for c in wanted]
    for (number, of_shard), other in zip(plan.shards(), planned, strict=True):
        assert shard_name(number) == other.name
        written_clips = clips_of_shard(shard_row(judged, selection, number, of_shard), work)
        assert [_shown(c) for c in written_clips] == [_shown(s.clip) for s in other.samples]
    offsets = {clip_id: at for shard in planned for clip_id, at in offsets_of(shard).items()}
    places = list(places_of(judged, plan))
    assert {row["clip_id"]: row["offset"] for row in places} == offsets
    assert [row["clip_id"] for row in places] == sorted(offsets)


def _plain(clip: Clip) -> dict[str, Any]:
    """As a table holds it: its numbers are float32, its embedding float16."""
    row = dataclasses.asdict(clip)
    row["embedding"] = None if clip.embedding is None else [float(v) for v in clip.embedding]
    return {n: float(np.float32(v)) if isinstance(v, float) else v for n, v in row.items()}


def _shown(clip: Clip) -> dict[str, Any]:
    return {name: value for name, value in _plain(clip).items() if name != "embedding"}


def test_a_shards_manifest_changes_with_whatever_changes_its_bytes(work: Work) -> None:
    found = list(world(work, 30))
    judged = written(work, found, set())
    selection = select(work, judged)
    number, clips = next(plan_of(judged, selection, SHARDS).shards())
    names = {shard_row(judged, selection, number, clips)["manifest"]}
    names.add(shard_row(judged, selection, number + 1, clips)["manifest"])
    names.add(shard_row(judged, selection, number, clips[::-1])["manifest"])
    selection.is_high_res_N[clips[0]] ^= True
    names.add(shard_row(judged, selection, number, clips)["manifest"])
    judged.cut_sha256_NB[clips[0], 0] ^= 1
    names.add(shard_row(judged, selection, number, clips)["manifest"])
    judged.row_digest_NB[clips[0], 0] ^= 1
    names.add(shard_row(judged, selection, number, clips)["manifest"])
    assert len(names) == 6


def test_a_clip_takes_no_memory_of_the_driver_where_there_are_many(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row with the embedding is a kilobyte and a half on disk, and several as objects; its
    columns, 200 bytes, are mapped from files."""
    monkeypatch.setattr(mapped, "SMALL_BYTES", 1)

    def held_bytes(count: int) -> int:
        found = list(world(work, count))
        written(work, found, set())
        names = [f"{first:06d}" for first in range(0, count, IN_A_PART)]
        tracemalloc.start()
        judged = read_judged(work, names)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(judged) == count
        return held

    held_bytes(32)  # what is imported and cached at the first time
    assert (held_bytes(480) - held_bytes(160)) / 320 < 50


@pytest.mark.parametrize("has_clips", [True, False])
def test_where_nothing_is_kept_there_is_no_shard(work: Work, has_clips: bool) -> None:
    found = [
        (source, [c.dropped("motion", "too_still") for c in clips if has_clips])
        for source, clips in world(work, 20)
    ]
    judged = written(work, found, set())
    selection = select(work, judged)
    plan = plan_of(judged, selection, SHARDS)
    assert plan.num_shards == 0
    assert list(plan.shards()) == [] == list(places_of(judged, plan))
    tables = list(clip_tables(work, Outcome.of(judged, selection, plan)))
    assert sum(t.num_rows for t in tables) == len(judged) == (20 if has_clips else 0)


def test_a_table_of_very_many_rows_is_a_folder_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path))
    clips = [clip for number in range(23) for clip in made_up(number)[1]]
    whole = to_table(Clip, clips)
    tables = [whole.slice(at, 4) for at in range(0, len(clips), 4)]
    publish.write_rows(store, CLIPS_TABLE, tables, len(clips))
    one_file = (tmp_path / CLIPS_TABLE).read_bytes()
    monkeypatch.setattr(publish, "FILE_ROWS", 10)
    monkeypatch.setattr(publish, "GROUP_ROWS", 5)
    publish.write_rows(store, CLIPS_TABLE, tables, len(clips))
    assert len(store.list_files(CLIPS_TABLE)) == 3
    assert store.read_table(CLIPS_TABLE).equals(whole)
    of_groups = digest_of_clips(_cut_all(t) for t in store.read_table_groups(CLIPS_TABLE))
    assert of_groups == digest_of_clips(_cut_all(whole))
    monkeypatch.undo()
    publish.write_rows(store, CLIPS_TABLE, tables, len(clips))
    assert (tmp_path / CLIPS_TABLE).read_bytes() == one_file


def _cut_all(clips: pa.Table) -> pa.Table:
    place = clips.schema.get_field_index("content_sha256")
    return clips.set_column(place, "content_sha256", pa.array(["0" * 64] * len(clips)))
