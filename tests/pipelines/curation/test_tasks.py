"""What a worker does with one source, called as Ray calls it but without Ray."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.committed import (
    commit_watched,
    judged_clips,
    passed_clips,
    samples_of,
    settled,
    watched,
    watched_table,
)
from pipelines.curation.config import demo
from pipelines.curation.ingest import ingest
from pipelines.curation.prepared import work_of
from pipelines.curation.tasks import CaptionClips, cut_source, watch_source_once
from pipelines.curation.work import Work
from pipelines.media import write_video
from pipelines.records import Source, from_row, to_row
from pipelines.storage import Store
from pipelines.world.scenes import Scene, render_frames


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    scene = Scene("circle", "red", "left", "textured", "still", 4)
    write_video(path, render_frames(scene, 50, 320, 180, 25.0), fps=25)
    path.with_suffix(".txt").write_text("a red circle over a hill\n")
    return path


@pytest.fixture
def work(film: Path, tmp_path: Path) -> Work:
    config = dataclasses.replace(
        demo(),
        footage=str(film.parent),
        dataset=str(tmp_path / "set"),
        captions=CaptionsConfig(backend="sidecar"),
    )
    return work_of(config, Store.open(config.dataset))


def row_of(film: Path) -> dict[str, object]:
    (found,) = [f for f in ingest(str(film.parent)) if f.source.status == "ok"]
    return {"source": json.dumps(to_row(found.source)), "paths": [os.fsencode(found.path)]}


def source_of_row(row: dict[str, object]) -> Source:
    return from_row(Source, json.loads(str(row["source"])))


def test_a_source_is_watched_once(film: Path, work: Work) -> None:
    row = row_of(film)
    first, second = watch_source_once(dict(row), work), watch_source_once(dict(row), work)
    assert (first["watched_now"], second["watched_now"]) == (True, False)
    assert first["clips"] == second["clips"] == 1 and first["footage_s"] == pytest.approx(2.0)
    source = source_of_row(row)
    (clip,) = passed_clips(work, source)
    assert len(samples_of(work, source.source_id)[clip.clip_id]) >= 2


def test_a_source_that_kills_its_worker_again_and_again_gets_a_row(film: Path, work: Work) -> None:
    row = row_of(film)
    source = source_of_row(row)
    for _ in range(work.config.resources.attempts):
        assert work.attempts.begin("watch", source.source_id)  # ... and the worker died
    assert watch_source_once(dict(row), work)["clips"] == 0
    seen, clips, _ = watched(work, source.source_id)
    assert (seen.status, seen.reason, clips) == ("failed", "decoder_died", [])


@pytest.mark.parametrize(("reason", "again"), [("timed_out", True), ("truncated", False)])
def test_what_may_have_been_the_moments_fault_is_tried_again_by_the_next_run(
    film: Path, work: Work, reason: str, again: bool
) -> None:
    source = source_of_row(row_of(film))
    failed = dataclasses.replace(source, status="failed", reason=reason)
    commit_watched(work, failed, watched_table(failed, [], {}, 1.0, work.run_id))
    assert settled(work, source.source_id)
    next_run = dataclasses.replace(work, run_id="another")
    assert settled(next_run, source.source_id) is not again
    assert watch_source_once(row_of(film), next_run)["clips"] == (1 if again else 0)


def test_captions_come_from_the_file_beside_and_follow_its_changes(film: Path, work: Work) -> None:
    row = row_of(film)
    watch_source_once(dict(row), work)
    stage, source = CaptionClips(work), source_of_row(row)
    stage(dict(row))
    (clip,) = judged_clips(work, source)
    assert clip.short_caption == "a red circle" and clip.captioner == "sidecar"
    beside = film.with_suffix(".txt")
    before = beside.read_text()
    try:
        beside.write_text("a ball\n")
        stage(dict(row))
    finally:
        beside.write_text(before)
    assert judged_clips(work, source)[0].short_caption == "a ball"


def test_rights_are_those_stated_now_not_those_of_an_earlier_run(film: Path, work: Work) -> None:
    row = row_of(film)
    watch_source_once(dict(row), work)
    now = dataclasses.replace(source_of_row(row), license="cc-by-4.0")
    assert [c.license for c in judged_clips(work, now)] == ["cc-by-4.0"]


def test_a_clip_that_cannot_be_cut_is_recorded_with_what_was_wrong(
    film: Path, work: Work, tmp_path: Path
) -> None:
    row = row_of(film)
    watch_source_once(dict(row), work)
    source = source_of_row(row)
    ids = [c.clip_id for c in passed_clips(work, source)]
    broken = tmp_path / "gone.mp4"
    broken.write_bytes(film.read_bytes()[:3000])
    wanted = {"source_id": source.source_id, "clip_ids": ids, "paths": [os.fsencode(broken)]}
    wanted |= {"places": "{}", "numbers": list(range(len(ids)))}
    assert cut_source(wanted, work)["cut"] == 1
    (cut,) = work.log("cuts").read(source.source_id).to_pylist()  # type: ignore[union-attr]
    assert cut["failed"] and cut["sha256"] is None
