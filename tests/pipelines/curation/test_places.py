"""Cuts taken out of the shards of earlier datasets: the same bytes, or none."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.curation.clip_ids import packed_ids
from pipelines.curation.config import demo
from pipelines.curation.places import (
    PLACES_FOLDER,
    FoundPlaces,
    bytes_at,
    find_places,
    remember_places,
)
from pipelines.curation.prepared import work_of
from pipelines.curation.shards import (
    Sample,
    ShardsConfig,
    offsets_of,
    plan_shards,
    write_shard,
)
from pipelines.curation.work import Work
from pipelines.lineage.manifest import DATASET_FILE
from pipelines.records import Clip
from pipelines.storage import Store
from tests.pipelines.curation.clips_of import a_clip


def media_of(clip: Clip) -> bytes:
    return clip.clip_id.encode() * (40 + len(clip.clip_id + clip.source_id) + clip.shot_index * 37)


def kept(number: int) -> Clip:
    kind = "image" if number % 3 == 0 else "video"
    clip = a_clip(number, shot_index=number, caption=f"größer {number}" * number, kind=kind)
    return dataclasses.replace(clip, content_sha256=hashlib.sha256(media_of(clip)).hexdigest())


def work_in(folder: Path, name: str) -> Work:
    config = dataclasses.replace(demo(), dataset=str(folder / name))
    return work_of(config, Store.open(config.dataset))


@pytest.fixture
def first(tmp_path: Path) -> Work:
    """A complete dataset of seven clips, its places remembered."""
    work = work_in(tmp_path, "first")
    samples = [Sample(c, len(media_of(c))) for c in map(kept, range(7))]
    planned = plan_shards(samples, ShardsConfig(max_samples=3))
    for shard in planned:
        write_shard(work.store, shard.name, [s.clip for s in shard.samples], media_of)
    clips = [s.clip for shard in planned for s in shard.samples]
    offsets = {c: at for shard in planned for c, at in offsets_of(shard).items()}
    rows = ({**cut_row(c), "shard": c.shard, "offset": offsets[c.clip_id]} for c in clips)
    remember_places(work, sorted(rows, key=lambda row: row["clip_id"]))
    work.store.write_json(DATASET_FILE, {})
    return work


def cut_row(clip: Clip) -> dict[str, Any]:
    media = media_of(clip)
    return {
        "clip_id": clip.clip_id,
        "size_bytes": len(media),
        "sha256": hashlib.sha256(media).hexdigest(),
        "failed": None,
    }


def places_among(work: Work, clip_ids: list[str]) -> FoundPlaces:
    return find_places(work, packed_ids(clip_ids), np.arange(len(clip_ids)))


def test_offsets_are_those_of_the_tar(first: Work) -> None:
    ids = [kept(i).clip_id for i in range(7)]
    found = places_among(work_in(Path(first.dataset).parent, "next"), ids)
    assert len(found) == 7
    for number, place in found.items():
        clip_id = ids[number]
        with tarfile.open(first.store.path(f"shards/{place['shard']}")) as tar:
            members = {m.name: m for m in tar.getmembers()}
        (member,) = (m for n, m in members.items() if n in (f"{clip_id}.mp4", f"{clip_id}.jpg"))
        assert (place["offset"], place["size_bytes"]) == (member.offset_data, member.size)


def test_the_bytes_are_taken_only_while_they_are_the_same(first: Work) -> None:
    wanted = kept(1)
    work = work_in(Path(first.dataset).parent, "next")
    (place,) = places_among(work, [wanted.clip_id]).values()
    assert bytes_at(place) == media_of(wanted)
    path = Path(first.store.path(f"shards/{place['shard']}"))
    data = bytearray(path.read_bytes())
    data[place["offset"] + 3] ^= 1
    path.write_bytes(data)
    assert bytes_at(place) is None
    path.write_bytes(data[: place["offset"] + 5])
    assert bytes_at(place) is None
    path.unlink()
    assert bytes_at(place) is None


def test_no_place_is_found_in_an_incomplete_dataset_or_in_this_one(first: Work) -> None:
    ids = [kept(1).clip_id]
    following = work_in(Path(first.dataset).parent, "next")
    assert places_among(first, ids) == {}
    assert places_among(following, ["0" * 32]) == {}
    Path(first.store.path(DATASET_FILE)).unlink()
    assert places_among(following, ids) == {}


def test_another_way_of_cutting_has_other_places(first: Work) -> None:
    config = dataclasses.replace(demo(), dataset=str(Path(first.dataset).parent / "next"))
    config = dataclasses.replace(config, cuts=dataclasses.replace(config.cuts, crf=30))
    assert places_among(work_of(config, Store.open(config.dataset)), [kept(1).clip_id]) == {}


def test_of_several_places_the_first_usable_one_is_taken_and_damage_costs_only_cuts(
    first: Work,
) -> None:
    following, ids = (
        work_in(Path(first.dataset).parent, "next"),
        [kept(i).clip_id for i in range(9)],
    )
    (name,) = first.shared.list_files(PLACES_FOLDER)
    table = first.shared.read_table(name)
    folder = Path(first.shared.path(name)).parent
    gone = table.set_column(
        table.schema.get_field_index("dataset"), "dataset", pa.array(["/gone"] * len(table))
    )
    pq.write_table(gone, folder / "0.parquet")
    strangers = table.set_column(0, "clip_id", pa.array(["no id"] * len(table)))
    pq.write_table(strangers, folder / "1.parquet")
    (folder / "2.parquet").write_bytes(b"PAR1 is not all it takes")
    found = places_among(following, ids)
    assert [ids[number] for number in found] == ids[:7]
    assert {row["dataset"] for row in found.values()} == {first.dataset}
    assert 7 not in found and 99 not in found
