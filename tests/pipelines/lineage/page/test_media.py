"""Clips on a page, taken out of their shards."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from pipelines.lineage import catalog, trace
from pipelines.lineage import past as backward
from pipelines.lineage.page.media import CLIPS, media_of, read_member
from pipelines.storage import Store
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past
from tests.pipelines.lineage.page.pages import answers, page_of


def test_clips_play_as_they_lie_in_the_shards(past: Past) -> None:
    page = page_of(past, answers(past)["source"])
    assert page.media() == [world.media_of(clip) for clip in past.clips_of("alpha.mp4")]


def test_a_checkpoint_shows_a_clip_of_each_source_that_it_saw(past: Past) -> None:
    known = catalog.build([str(past.root)])
    entry = backward.checkpoint_entry(known, str(past.root / "base-x"))
    media = media_of(known, backward.trace_checkpoint(known, entry))
    seen = {c.clip_id for name in SOURCES[:2] for c in past.clips_of(name)}
    assert {player.clip_id for player in media.players} == seen
    by_id = {clip.clip_id: clip.source_id for clip in past.clips}
    first_two = {by_id[player.clip_id] for player in media.players[:2]}
    assert first_two == {world.source_id(name) for name in SOURCES[:2]}


def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    clips = [world.make_clip("long.mp4", shot) for shot in range(CLIPS + 5)]
    world.write_dataset(tmp_path / "set", ["long.mp4"], clips)
    known = catalog.build([str(tmp_path)])
    report = trace.trace_source(known, world.source_id("long.mp4"))
    media = media_of(known, report)
    assert len(media.players) == CLIPS
    assert media.left_out == (f"{CLIPS} of {CLIPS + 5} clips are shown, to keep the page small",)


def test_a_page_stays_small(past: Past) -> None:
    first, second, _ = (len(world.media_of(clip)) for clip in past.clips_of("alpha.mp4"))
    known = catalog.build([str(past.root)])
    report = trace.trace_source(known, world.source_id("alpha.mp4"))
    media = media_of(known, report, page_bytes=first + second)
    assert len(media.players) == 2 and "1 did not fit" in media.left_out


@pytest.mark.parametrize("harm", ["gone", "cut short", "not a tar"])
def test_a_shard_that_cannot_be_read_is_a_reason(past: Past, harm: str) -> None:
    for shard in (past.root / "dataset-a" / "shards").iterdir():
        data = shard.read_bytes()
        shard.unlink()
        if harm != "gone":
            shard.write_bytes(data[:700] if harm == "cut short" else b"pictures" * 1000)
    page = page_of(past, answers(past)["clip"])
    assert page.media() == [] and "1 could not be read from where they should be" in page.text


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_member_is_found_by_its_headers(tmp_path: Path, place: str) -> None:
    path = tmp_path / "one.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, size in (("a.mp4", 70_000), ("é" * 90 + ".mp4", 1), ("b.mp4", 0), ("c.jpg", 512)):
            file = tmp_path / "content"
            file.write_bytes(hashlib.shake_128(name.encode()).digest(size))
            tar.add(file, name)
    store = Store(str(tmp_path)) if place == "local" else Store(f"memory://{tmp_path.name}")
    if place == "memory":
        store.write_bytes("one.tar", path.read_bytes())
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            held = tar.extractfile(member)
            assert held and read_member(store, "one.tar", member.name) == held.read()
    assert read_member(store, "one.tar", "d.mp4") is None
