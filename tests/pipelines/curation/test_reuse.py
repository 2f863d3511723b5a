"""What one job may use of another's work, without Ray: called as the graph calls it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from pipelines.config import RequestError
from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.committed import (
    commit_captions,
    commit_watched,
    judged_clips,
    raw_captions,
    settled,
    watched,
    watched_table,
)
from pipelines.curation.config import CurateConfig, demo
from pipelines.curation.ingest import ingest
from pipelines.curation.pending import described, uncaptioned
from pipelines.curation.prepared import prepare, work_of
from pipelines.curation.publish import remove_scratch
from pipelines.curation.tasks import CaptionClips, ScoreClips, watch_source_once
from pipelines.curation.work import Work
from pipelines.media import write_video
from pipelines.records import Source, to_row
from pipelines.storage import Store
from pipelines.storage.writer_lock import writer_lock
from pipelines.world.scenes import Scene, render_frames


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "film.mp4"
    scene = Scene("square", "blue", "right", "textured", "still", 3)
    write_video(path, render_frames(scene, 40, 320, 180, 25.0), fps=25)
    return path


def config_of(film: Path, dataset: Path) -> CurateConfig:
    return dataclasses.replace(demo(), footage=str(film.parent), dataset=str(dataset))


def work_for(config: CurateConfig) -> Work:
    return work_of(config, Store.open(config.dataset))


def source_of(film: Path) -> Source:
    (found,) = [f.source for f in ingest(str(film.parent)) if f.source.status == "ok"]
    return found


def row_of(film: Path) -> dict[str, object]:
    return {"source": json.dumps(to_row(source_of(film))), "paths": [os.fsencode(film)]}


def with_sandbox(config: CurateConfig, **limits: float) -> CurateConfig:
    sandbox = dataclasses.replace(config.watch.sandbox, **limits)
    return dataclasses.replace(config, watch=dataclasses.replace(config.watch, sandbox=sandbox))


def with_captioner(config: CurateConfig, backend: str) -> CurateConfig:
    return dataclasses.replace(config, captions=CaptionsConfig(backend=backend))


def test_a_dataset_beside_another_finds_all_that_was_done(film: Path, tmp_path: Path) -> None:
    first, beside = (work_for(config_of(film, tmp_path / name)) for name in ("one", "two"))
    elsewhere = work_for(config_of(film, tmp_path / "away" / "three"))
    source, row = source_of(film), row_of(film)
    assert not described(first, source)
    for stage in (
        lambda r, w: watch_source_once(r, w),
        lambda r, w: ScoreClips(w)(CaptionClips(w)(r)),
    ):
        row = stage(row, first)
    assert row["watched_now"] and row["captioned"] == row["scored"] == 1
    assert described(first, source) and described(beside, source)
    assert not settled(elsewhere, source.source_id)
    assert judged_clips(beside, source) == judged_clips(first, source)
    assert not list((tmp_path / "one").rglob("*.parquet"))  # all of it is in the shared folder


def test_another_captioner_asks_only_for_captions(film: Path, tmp_path: Path) -> None:
    config = config_of(film, tmp_path / "one")
    watch_source_once(row_of(film), work_for(config))
    other = work_for(with_captioner(config, "openai:http://127.0.0.1:9"))
    source = source_of(film)
    assert settled(other, source.source_id) and len(uncaptioned(other, source)) == 1


def test_a_score_belongs_to_the_text_that_was_scored(film: Path, tmp_path: Path) -> None:
    work = work_for(config_of(film, tmp_path / "one"))
    source, row = source_of(film), watch_source_once(row_of(film), work)
    row = ScoreClips(work)(CaptionClips(work)(row))
    (clip,) = judged_clips(work, source)
    other = dataclasses.replace(work, keys={**work.keys, "captions": "another"})
    commit_captions(other, source.source_id, {clip.clip_id: "something else"})
    assert not described(other, source) and described(work, source)
    assert ScoreClips(other)(dict(row))["scored"] == 1
    assert described(other, source) and judged_clips(work, source) == [clip]


def test_captions_of_two_jobs_at_once_are_all_kept(film: Path, tmp_path: Path) -> None:
    one, two = (work_for(config_of(film, tmp_path / name)) for name in ("one", "two"))
    commit_captions(one, "a" * 32, {"x": "first", "y": "second"})
    commit_captions(two, "a" * 32, {"z": "third"})
    assert raw_captions(one, "a" * 32) == {"x": "first", "y": "second", "z": "third"}


def test_texts_beside_the_films_are_of_their_own_dataset(film: Path, tmp_path: Path) -> None:
    configs = (with_captioner(config_of(film, tmp_path / n), "sidecar") for n in ("one", "two"))
    one, two = map(work_for, configs)
    commit_captions(one, "a" * 32, {"x": "mine"})
    assert raw_captions(two, "a" * 32) == {}


def test_limits_retry_failures_and_nothing_else(film: Path, tmp_path: Path) -> None:
    config = config_of(film, tmp_path / "one")
    usual, roomy = work_for(config), work_for(with_sandbox(config, memory_mib=4096))
    source = source_of(film)
    broken = dataclasses.replace(source, status="failed", reason="broken")
    commit_watched(usual, broken, watched_table(broken, [], {}, 1.0, usual.run_id))
    assert settled(usual, source.source_id) and not settled(roomy, source.source_id)
    watch_source_once(row_of(film), roomy)
    assert watched(roomy, source.source_id)[0].status == "ok"
    assert watched(usual, source.source_id)[0].reason == "broken"  # as alone, it would be again


def test_a_failure_of_the_moment_is_of_its_own_run(film: Path, tmp_path: Path) -> None:
    one, two = (work_for(config_of(film, tmp_path / name)) for name in ("one", "two"))
    source = source_of(film)
    late = dataclasses.replace(source, status="failed", reason="timed_out")
    commit_watched(one, late, watched_table(late, [], {}, 1.0, one.run_id))
    assert not settled(two, source.source_id)
    watch_source_once(row_of(film), two)
    assert watched(one, source.source_id)[0].reason == "timed_out"  # one's run has moved on with it
    again = dataclasses.replace(one, run_id="later")
    assert watched(again, source.source_id)[0].status == "ok"


def test_the_work_folder_is_where_it_can_be(film: Path, tmp_path: Path) -> None:
    config = config_of(film, tmp_path / "sets" / "one")
    assert work_for(config).shared_uri == str(tmp_path / "sets" / "_work")
    asked = dataclasses.replace(config, work=str(tmp_path / "asked"))
    assert work_for(asked).shared_uri == str(tmp_path / "asked")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "_work").write_text("not a folder")
    inside = config_of(film, tmp_path / "locked" / "one")
    assert work_for(inside).shared_uri == str(tmp_path / "locked" / "one" / "_work")
    with pytest.raises(RequestError, match="cannot write here"):
        work_for(dataclasses.replace(config, work=str(tmp_path / "locked" / "_work")))


@pytest.mark.parametrize(
    ("shared", "left"), [("_work", {"_work/watch/k/a.parquet"}), ("../_work", set())]
)
def test_scratch_goes_and_what_is_shared_stays(tmp_path: Path, shared: str, left: set[str]) -> None:
    store = Store.open(str(tmp_path / "set"))
    for name in ("watch/k/a.parquet", "attempts/r/watch-a-1", "cuts/k/a.parquet", "writer.lock"):
        store.write_bytes(f"_work/{name}", b"x")
    with writer_lock(store):  # its file goes with its holder
        remove_scratch(store, Store.open(os.path.normpath(tmp_path / "set" / shared)))
    assert set(store.list_files()) == left


@pytest.mark.parametrize("name", ["dataset", "work"])
def test_nothing_is_written_among_the_footage(film: Path, tmp_path: Path, name: str) -> None:
    config = config_of(film, tmp_path / "set")
    with pytest.raises(RequestError, match=f"--{name} .* lies inside --footage"):
        prepare(dataclasses.replace(config, **{name: str(film.parent / "out")}))


def test_nor_is_the_footage_in_the_dataset(film: Path, tmp_path: Path) -> None:
    config = config_of(film, tmp_path / "set")
    with pytest.raises(RequestError, match="--footage lies in it"):
        prepare(dataclasses.replace(config, dataset=str(film.parent)))
    with pytest.raises(RequestError, match="--footage lies in it"):
        prepare(dataclasses.replace(config, dataset=str(film.parent.parent)))
