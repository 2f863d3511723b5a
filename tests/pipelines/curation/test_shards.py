from __future__ import annotations

import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curation.shards import (
    PlannedShard,
    Sample,
    ShardsConfig,
    is_published,
    plan_shards,
    planned_bytes,
    remove_strangers,
    sample_of,
    write_shard,
)
from pipelines.records import Clip, Shard
from pipelines.storage import Store
from tests.pipelines.curation.clips_of import a_clip


def media_of(clip: Clip) -> bytes:
    return b"media of " + clip.source_id.encode()


def a_sample(number: int, size_bytes: int | None = None) -> Sample:
    clip = a_clip(number, caption=f"clip {number}", motion=0.1)
    media = media_of(clip)
    clip = a_clip(
        number,
        caption=clip.caption,
        motion=0.1,
        content_sha256=hashlib.sha256(media).hexdigest(),
    )
    return Sample(clip, len(media) if size_bytes is None else size_bytes)


def placed(plan: list[PlannedShard]) -> dict[str, tuple[str | None, str | None]]:
    return {s.clip.clip_id: (s.clip.shard, s.clip.key) for shard in plan for s in shard.samples}


@given(
    sizes=st.lists(st.integers(0, 5000), max_size=40),
    max_samples=st.integers(1, 9),
    max_bytes=st.integers(1, 40000),
    seed=st.integers(0, 3),
    shuffle=st.randoms(),
)
def test_every_sample_is_in_one_shard_none_is_empty_and_order_decides_nothing(
    sizes: list[int], max_samples: int, max_bytes: int, seed: int, shuffle: random.Random
) -> None:
    config = ShardsConfig(max_samples=max_samples, max_bytes=max_bytes, seed=seed)
    samples = [a_sample(i, size) for i, size in enumerate(sizes)]
    plan = plan_shards(samples, config)
    assert sorted(placed(plan)) == sorted(s.clip.clip_id for s in samples)
    assert sum(len(shard.samples) for shard in plan) == len(samples)
    assert [shard.name for shard in plan] == [f"shard-{i:05d}.tar" for i in range(len(plan))]
    for shard in plan:
        assert 1 <= len(shard.samples) <= max_samples
        within = sum(planned_bytes(s) for s in shard.samples) <= max_bytes
        assert within or len(shard.samples) == 1
    shuffle.shuffle(samples)
    assert placed(plan_shards(samples, config)) == placed(plan)


def test_the_seed_mixes_films() -> None:
    samples = [a_sample(i) for i in range(200)]
    orders = {
        tuple(s.clip.source_id for shard in plan_shards(samples, config) for s in shard.samples)
        for config in (ShardsConfig(seed=0), ShardsConfig(seed=1))
    }
    assert len(orders) == 2
    assert all(list(order) != sorted(order) for order in orders)


def written(folder: Path, samples: list[Sample], config: ShardsConfig) -> list[Shard]:
    store = Store.open(str(folder))
    return [
        write_shard(store, shard.name, [s.clip for s in shard.samples], media_of)
        for shard in plan_shards(samples, config)
    ]


def test_bytes_are_the_same_wherever_and_whenever_they_are_written(tmp_path: Path) -> None:
    samples = [a_sample(i) for i in range(7)]
    config = ShardsConfig(max_samples=3)
    one = written(tmp_path / "a", samples, config)
    two = written(tmp_path / "b", samples[::-1], config)
    assert one == two and [s.samples for s in one] == [3, 3, 1]
    for shard in one:
        a, b = ((tmp_path / x / "shards" / shard.shard).read_bytes() for x in "ab")
        assert a == b and len(a) == shard.bytes
        assert hashlib.sha256(a).hexdigest() == shard.sha256


def test_a_shard_never_passes_its_cap_in_bytes(tmp_path: Path) -> None:
    config = ShardsConfig(max_bytes=30_000)
    shards = written(tmp_path, [a_sample(i) for i in range(20)], config)
    assert len(shards) > 1 and all(s.bytes <= config.max_bytes for s in shards)


def test_members_are_named_by_key_with_nothing_of_this_machine(tmp_path: Path) -> None:
    sample = a_sample(0)
    written(tmp_path, [sample], ShardsConfig())
    with tarfile.open(tmp_path / "shards" / "shard-00000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        f"{sample.clip.clip_id}.{e}" for e in ("json", "mp4", "txt")
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_the_row_in_the_shard_reads_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webdataset as wds

    # As in an outside reader's process: under WDS_SECURE webdataset opens no local path at all.
    monkeypatch.setattr("webdataset.utils.enforce_security", False)
    sample = a_sample(0)
    written(tmp_path, [sample], ShardsConfig())
    url = str(tmp_path / "shards" / "shard-00000.tar")
    (found,) = list(wds.WebDataset(url, shardshuffle=False).decode())
    assert found["txt"] == "clip 0" and found["mp4"] == media_of(sample.clip)
    assert found["json"]["clip_id"] == sample.clip.clip_id and found["json"]["motion"] == 0.1
    assert "embedding" not in found["json"]


def test_the_bytes_are_those_of_webdataset_s_own_writer(tmp_path: Path) -> None:
    from webdataset import TarWriter

    samples = [a_sample(i) for i in range(3)]
    (shard,) = written(tmp_path, samples, ShardsConfig())
    (planned,) = plan_shards(samples, ShardsConfig())
    theirs = io.BytesIO()
    with TarWriter(theirs, mtime=0, user="", group="", encoder=False) as tar:
        for sample in planned.samples:
            tar.write(sample_of(sample.clip, media_of(sample.clip)))
    assert (tmp_path / "shards" / shard.shard).read_bytes() == theirs.getvalue()


def test_a_cut_that_is_not_what_the_row_says_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(ValueError, match="sha256"):
        write_shard(store, "shard-00000.tar", [a_sample(0).clip], lambda clip: b"other")
    assert store.list_files("shards") == []


def test_what_is_published_is_checked_and_strangers_go(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    (shard,) = written(tmp_path, [a_sample(0)], ShardsConfig())
    assert is_published(store, shard)
    store.write_bytes("shards/shard-00001.tar", b"of an earlier plan")
    remove_strangers(store, [shard])
    assert store.list_files("shards") == ["shards/shard-00000.tar"]
    path = tmp_path / "shards" / "shard-00000.tar"
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        first = tar.getmembers()[1].offset
    path.write_bytes(path.read_bytes()[:first])  # cut on a member boundary: still a valid tar
    assert not is_published(store, shard)
    path.unlink()
    assert not is_published(store, shard)
