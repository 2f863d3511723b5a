from __future__ import annotations

import os
import tarfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.curation.shards import write_shard
from pipelines.lineage.difference import diff
from pipelines.lineage.manifest import Dataset, digest_of_clips, read_dataset
from pipelines.lineage.shard_rewriting import copy_without
from pipelines.lineage.takedown import Takedown, take_down
from pipelines.lineage.takedown_list import read_list, resolve_targets
from pipelines.lineage.wholeness import check_dataset
from pipelines.records import Clip, from_table, to_table
from pipelines.storage import Store
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past


def run(past: Past, *named: str, out: str = "dataset-b") -> tuple[Dataset, Takedown, Dataset]:
    before = read_dataset(past.dataset["uri"])
    done = take_down(before, resolve_targets(before, named), str(past.root / out))
    return before, done, read_dataset(str(past.root / out))


def rows_of(dataset: Dataset) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in from_table(Clip, dataset.clips)}


def test_a_source_goes_and_no_other_clip_changes(past: Past) -> None:
    before, done, after = run(past, world.source_id("alpha.mp4"))
    gone = {clip.clip_id for clip in past.clips_of("alpha.mp4")}
    source = gone | {clip.clip_id for clip in past.clips_of("alpha.mp4", "dropped")}
    assert set(done.removed) == gone
    assert check_dataset(after.uri) == []
    old, new = rows_of(before), rows_of(after)
    assert list(old) == list(new)
    for clip_id, row in new.items():
        if clip_id in gone:
            assert (row.verdict, row.reason_stage, row.reason) == (
                "dropped",
                "takedown",
                "taken_down",
            )
            assert (row.shard, row.key, row.content_sha256, row.tiers) == (None, None, None, [])
        if clip_id in source:  # nothing that was made from the pictures stays
            assert row.caption is row.short_caption is row.embedding is row.phash is None
        else:
            assert row == old[clip_id]
    difference = diff(before, after)
    assert {row["clip_id"] for row in difference.removed} == gone
    assert difference.added == difference.changed == []


def test_the_new_version_names_its_parent_and_its_own_content(past: Past) -> None:
    before, done, after = run(past, past.clips_of("alpha.mp4")[0].clip_id)
    assert after.parent_digest == before.digest == past.dataset["digest"]
    assert after.digest == done.digest == digest_of_clips(after.clips) != before.digest
    assert after.manifest["counts"]["kept"] == 8
    assert after.manifest["counts"]["licenses"] == {"CC0-1.0": 8}
    assert after.manifest["tombstones"]["clips"] == 1
    assert after.manifest["counts"]["reasons"] == {"taken_down": 1, "too_still": 3}
    assert not Path(after.uri, "_work").exists()


def test_untouched_shards_are_the_same_file_and_touched_ones_lose_only_what_goes(
    past: Past,
) -> None:
    clip = past.clips_of("beta film.mp4")[0]
    before, done, after = run(past, clip.clip_id)
    assert len(done.rewritten_shards) == 1 and len(done.same_shards) == 2
    for name in done.same_shards:
        same = (Path(d.uri, "shards", name) for d in (before, after))
        assert os.path.samefile(*same)
    # The rewritten shard is what curation would have written without that clip.
    (name,) = done.rewritten_shards
    left = [c for c in from_table(Clip, before.clips) if c.shard == name]
    left = [c for c in left if c.clip_id != clip.clip_id]
    order = {key: i for i, key in enumerate(keys_in_order(Path(after.uri, "shards", name)))}
    left.sort(key=lambda c: order[str(c.key)])
    expected = Store(str(past.root / "expected"))
    write_shard(expected, name, left, world.media_of)
    assert Path(after.uri, "shards", name).read_bytes() == expected.read_bytes(f"shards/{name}")


def keys_in_order(tar_path: Path) -> list[str]:
    with tarfile.open(tar_path) as tar:
        return list(dict.fromkeys(member.name.partition(".")[0] for member in tar))


def test_a_shard_that_loses_everything_is_gone(past: Past) -> None:
    before = read_dataset(past.dataset["uri"])
    name = before.shards["shard"].to_pylist()[0]
    doomed = [c.clip_id for c in from_table(Clip, before.clips) if c.shard == name]
    _, done, after = run(past, *doomed)
    assert done.rewritten_shards == [name]
    assert name not in after.shards["shard"].to_pylist()
    assert not Path(after.uri, "shards", name).exists()
    assert check_dataset(after.uri) == []


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chosen=st.sets(st.integers(0, 11), min_size=1))
def test_over_deletion_is_exactly_none(past: Past, chosen: set[int]) -> None:
    asked = [past.clips[i].clip_id for i in sorted(chosen)]
    before, done, after = run(past, *asked, out=f"version-{uuid.uuid4()}")
    kept_before = {c for c, row in rows_of(before).items() if row.verdict == "kept"}
    kept_after = {c for c, row in rows_of(after).items() if row.verdict == "kept"}
    assert kept_before - kept_after == kept_before & set(asked) == set(done.removed)
    assert check_dataset(after.uri) == []


def test_tombstones_add_up_over_versions(past: Past) -> None:
    single = past.clips_of("beta film.mp4")[0]
    _, _, second = run(past, single.clip_id)
    targets = resolve_targets(second, ["alpha.mp4"])
    take_down(second, targets, str(past.root / "dataset-c"))
    third = read_dataset(str(past.root / "dataset-c"))
    assert third.tombstones is not None
    found = {(r["source_id"], r["clip_id"]): r["from_digest"] for r in third.tombstones.to_pylist()}
    assert found == {
        (single.source_id, single.clip_id): past.dataset["digest"],
        (world.source_id("alpha.mp4"), None): second.digest,
    }
    assert third.parent_digest == second.digest


def test_dropped_clips_of_a_source_keep_their_first_reason(past: Past) -> None:
    _, _, after = run(past, "alpha.mp4")
    (dropped,) = past.clips_of("alpha.mp4", "dropped")
    assert rows_of(after)[dropped.clip_id].reason == "too_still"


def test_near_copies_are_named_and_left(past: Past) -> None:
    clips = list(past.clips)
    copy = past.clips_of("gamma.mp4")[0]
    original = past.clips_of("alpha.mp4")[0]
    dropped = replace(copy, duplicate_of=original.clip_id).dropped("duplicates", "duplicate")
    clips[clips.index(copy)] = dropped
    digest = world.write_dataset(past.root / "dataset-d", SOURCES, clips)
    past.dataset.update(uri=str(past.root / "dataset-d"), digest=digest)
    _, done, after = run(past, "alpha.mp4")
    assert done.copies_left == [copy.clip_id]
    assert rows_of(after)[copy.clip_id].reason == "duplicate"


def test_an_interrupted_takedown_is_run_again(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_dataset(past.dataset["uri"])
    targets = resolve_targets(before, ["alpha.mp4"])
    out = str(past.root / "dataset-b")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write_bytes", full_disk_at("dataset.json", Store.write_bytes))
        with pytest.raises(OSError, match="disk full"):
            take_down(before, targets, out)
    with pytest.raises(RequestError, match=r"dataset\.json"):
        read_dataset(out)
    # Now for another list: nothing of the first attempt may stay.
    done = take_down(before, resolve_targets(before, ["gamma.mp4"]), out)
    assert check_dataset(out) == []
    assert {row.source_id for row in rows_of(read_dataset(out)).values() if row.shard} == {
        world.source_id("alpha.mp4"),
        world.source_id("beta film.mp4"),
    }
    assert len(done.removed) == 3


def full_disk_at(wanted: str, write_bytes: object) -> object:
    def write(self: Store, relative: str, data: object) -> None:
        if relative == wanted:
            raise OSError("disk full")
        write_bytes(self, relative, data)  # type: ignore[operator]

    return write


def test_wrong_requests_are_one_line(past: Past, tmp_path: Path) -> None:
    before = read_dataset(past.dataset["uri"])
    footage = sorted(path.name for path in (past.root / "footage").iterdir())
    with pytest.raises(RequestError, match="'nobody'"):
        resolve_targets(before, ["nobody"])
    targets = resolve_targets(before, ["alpha.mp4"])
    for out, words in (
        (before.uri, "itself"),
        (f"{before.uri}/inside", "lies in"),
        (str(past.root), "around it"),
        (str(past.root / "footage"), "not empty"),
    ):
        with pytest.raises(RequestError, match=words):
            take_down(before, targets, out)
    run(past, "alpha.mp4")
    with pytest.raises(RequestError, match="complete"):
        take_down(before, targets, str(past.root / "dataset-b"))
    assert sorted(path.name for path in (past.root / "footage").iterdir()) == footage


def test_lists_may_hold_comments_files_and_blank_lines(past: Past, tmp_path: Path) -> None:
    film = past.root / "footage" / "beta film.mp4"
    listed = tmp_path / "list.txt"
    listed.write_text(f"# asked for on Monday\n\n{film}\n  gamma.mp4  \n")
    targets = resolve_targets(read_dataset(past.dataset["uri"]), read_list(str(listed)))
    assert targets.source_ids == {world.source_id("beta film.mp4"), world.source_id("gamma.mp4")}
    for text in ("", "# nothing\n"):
        listed.write_text(text)
        with pytest.raises(RequestError, match="names nothing"):
            read_list(str(listed))
    with pytest.raises(RequestError, match="cannot be read"):
        read_list(str(tmp_path / "missing"))


@pytest.mark.parametrize("name_length", [20, 150, 300])
def test_long_member_names_survive_a_rewrite(tmp_path: Path, name_length: int) -> None:
    """Names over 100 characters have header blocks of their own (pax or GNU)."""
    clips = [
        replace(world.make_clip("a", i), key=f"{i}" * name_length, content_sha256="")
        for i in range(3)
    ]
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w") as tar:
        for clip in clips:
            for ending in ("mp4", "txt"):
                path = tmp_path / ending
                path.write_bytes(f"{clip.key} {ending}".encode() * 30)
                tar.add(path, f"{clip.key}.{ending}")
    copy_without(source, tmp_path / "b.tar", {str(clips[1].key)})
    with tarfile.open(tmp_path / "b.tar") as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert set(found) == {f"{i * name_length}.{e}" for i in "02" for e in ("mp4", "txt")}
    assert found[f"{'2' * name_length}.txt"] == f"{'2' * name_length} txt".encode() * 30
    assert (tmp_path / "b.tar").stat().st_size % tarfile.RECORDSIZE == 0


def test_the_marked_rows_keep_the_contract_s_schema(past: Past) -> None:
    _, _, after = run(past, "alpha.mp4")
    assert after.clips.schema.equals(to_table(Clip, []).schema)
