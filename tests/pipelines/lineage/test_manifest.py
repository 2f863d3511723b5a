from __future__ import annotations

import hashlib
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.lineage.difference import diff
from pipelines.lineage.manifest import dataset_digest, digest_of_clips, read_dataset
from pipelines.lineage.wholeness import check_dataset
from pipelines.records import Clip, Shard, from_table, to_table
from pipelines.storage import Store
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import Past

TEXT = st.text(st.characters(codec=None), max_size=8)
ROWS = st.lists(st.tuples(TEXT.filter(bool), TEXT.filter(bool), st.none() | TEXT), max_size=5)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_order(rows: list, rng: random.Random) -> None:
    mixed = list(rows)
    rng.shuffle(mixed)
    digest = dataset_digest(mixed, 1)
    assert digest == dataset_digest(rows, 1)
    assert len(digest) == 32 and int(digest, 16) >= 0


@settings(max_examples=300)
@given(ROWS, ROWS)
def test_different_clips_have_different_digests(a: list, b: list) -> None:
    def order(row: tuple) -> tuple:
        return row[0], row[1], row[2] is None, row[2] or ""

    same = sorted(a, key=order) == sorted(b, key=order)
    assert (dataset_digest(a, 1) == dataset_digest(b, 1)) is same


def test_the_digest_cannot_be_confused_by_moving_text_between_fields() -> None:
    rows = [
        ("a", "bc", "d"),
        ("ab", "c", "d"),
        ("a", "b", "cd"),
        ("a", "bcd", ""),
        ("a", "bcd", None),
    ]
    assert len({dataset_digest([row], 1) for row in rows}) == len(rows)


def test_the_digest_changes_with_the_schema() -> None:
    assert dataset_digest([], 1) != dataset_digest([], 2)


def test_a_kept_clip_without_content_cannot_be_named() -> None:
    with pytest.raises(ValueError, match="content_sha256"):
        dataset_digest([("a", "", None)], 1)


def test_dropped_clips_do_not_enter_the_digest() -> None:
    kept = replace(world.make_clip("a", 0), content_sha256="f" * 64)
    dropped = world.make_clip("a", 1).dropped("motion", "too_still")
    assert digest_of_clips(to_table(Clip, [kept, dropped])) == digest_of_clips(
        to_table(Clip, [kept])
    )


# --- reading and checking --------------------------------------------------------------------


def test_a_complete_dataset_reads_and_is_sound(past: Past) -> None:
    dataset = read_dataset(past.dataset["uri"])
    assert dataset.digest == past.dataset["digest"]
    assert (dataset.sources.num_rows, dataset.clips.num_rows) == (3, 12)
    assert dataset.tombstones is None
    assert check_dataset(past.dataset["uri"]) == []


@pytest.mark.parametrize("missing", ["dataset.json", "clips.parquet", "shards.parquet"])
def test_an_incomplete_dataset_is_refused(past: Past, missing: str) -> None:
    Path(past.dataset["uri"], missing).unlink()
    with pytest.raises(RequestError, match=missing):
        read_dataset(past.dataset["uri"])


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not found"):
        read_dataset(str(tmp_path / "nowhere"))
    (tmp_path / "dataset.json").write_text("{ half")
    with pytest.raises(RequestError, match="not a dataset manifest"):
        read_dataset(str(tmp_path))


def test_another_schema_version_is_refused(past: Past) -> None:
    store = Store(past.dataset["uri"])
    store.write_json("dataset.json", {**store.read_json("dataset.json"), "schema_version": 99})
    with pytest.raises(RequestError, match="schema version 99"):
        read_dataset(past.dataset["uri"])


def cut_on_a_member_boundary(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-3]
    shard.write_bytes(shard.read_bytes()[: last.offset])


def flip_a_bit(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)


def relabel_with_matching_hashes(shard: Path) -> None:
    """Even a shard whose index row was brought in line must hold the clips that name it."""
    cut_on_a_member_boundary(shard)
    store = Store(str(shard.parent.parent))
    rows = from_table(Shard, store.read_table("shards.parquet"))
    data = shard.read_bytes()
    mended = [
        replace(r, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), samples=r.samples - 1)
        if r.shard == shard.name
        else r
        for r in rows
    ]
    store.write_table("shards.parquet", to_table(Shard, mended))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "missing"),
        (cut_on_a_member_boundary, "bytes"),
        (flip_a_bit, "sha256"),
        (relabel_with_matching_hashes, "not in its shard"),
    ],
)
def test_damage_to_a_shard_is_named(past: Past, damage: Callable[[Path], None], words: str) -> None:
    shard = sorted(Path(past.dataset["uri"], "shards").iterdir())[0]
    damage(shard)
    problems = check_dataset(past.dataset["uri"])
    assert problems and shard.name in problems[0] and words in problems[0]


def test_a_changed_caption_and_a_stray_shard_are_found(past: Past) -> None:
    store = Store(past.dataset["uri"])
    rows = from_table(Clip, store.read_table("clips.parquet"))
    store.write_table("clips.parquet", to_table(Clip, [replace(rows[0], caption="x"), *rows[1:]]))
    store.write_bytes("shards/extra.tar", b"")
    found = " ".join(check_dataset(past.dataset["uri"]))
    assert "dataset.json: digest" in found and "extra.tar" in found


# --- what changed ----------------------------------------------------------------------------


def test_diff_says_what_changed_and_why(past: Past) -> None:
    clips = list(past.clips)
    clips[0] = clips[0].dropped("overlay_text", "overlay_text")
    clips[1] = replace(clips[1], caption="another caption", tiers=["base", "premium"])
    clips[3] = replace(clips[3], verdict="kept", reason=None, reason_stage=None)
    gone = clips.pop(2)
    world.write_dataset(past.root / "dataset-b", ["alpha.mp4"], clips)
    a, b = read_dataset(past.dataset["uri"]), read_dataset(str(past.root / "dataset-b"))
    found = diff(a, b)
    assert {row["clip_id"]: row["why"] for row in found.removed} == {
        clips[0].clip_id: "overlay_text: overlay_text",
        gone.clip_id: "not in the other version",
    }
    assert [(row["clip_id"], row["why"]) for row in found.added] == [
        (clips[2].clip_id, "motion: too_still")
    ]
    assert [(row["clip_id"], row["why"]) for row in found.changed] == [
        (clips[1].clip_id, "caption, tiers")
    ]


def test_a_dataset_does_not_differ_from_itself(past: Past) -> None:
    a = read_dataset(past.dataset["uri"])
    found = diff(a, a)
    assert found.added == found.removed == found.changed == []
