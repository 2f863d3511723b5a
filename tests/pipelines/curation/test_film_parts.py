"""Parts as the workers see to them, called as Ray calls them but without Ray."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from pipelines.curation.committed import samples_of, watched
from pipelines.curation.config import demo
from pipelines.curation.film_parts import joined_film, part_rows, watch_part_once
from pipelines.curation.ingest import ingest
from pipelines.curation.prepared import work_of
from pipelines.curation.resources import ResourcesConfig
from pipelines.curation.tasks import watch_source_once
from pipelines.curation.work import Work
from pipelines.media import write_video
from pipelines.records import Source, from_row, to_row
from pipelines.storage import Store
from tests.pipelines.pictures import moving_square

Row = dict[str, object]


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "footage"
    folder.mkdir()
    frames = [f for seed, n in enumerate((40, 55, 70, 35)) for f in moving_square(seed, n)]
    write_video(folder / "film.mp4", frames, fps=25, options={"g": "12"})
    return folder


def work_at(footage: Path, dataset: Path, part_s: float = 2.0, part_min_mib: int = 0) -> Work:
    resources = ResourcesConfig(part_s=part_s, part_min_mib=part_min_mib)
    config = dataclasses.replace(
        demo(), footage=str(footage), dataset=str(dataset / "set"), resources=resources
    )
    return work_of(config, Store.open(config.dataset))


def row_of(footage: Path) -> Row:
    (found,) = ingest(str(footage))
    return {"source": json.dumps(to_row(found.source)), "paths": [os.fsencode(found.path)]}


def source_of(row: Row) -> Source:
    return from_row(Source, json.loads(str(row["source"])))


def outcome(row: Row, work: Work) -> tuple[object, ...]:
    watch_source_once(dict(row), work)
    source_id = source_of(row).source_id
    return (*watched(work, source_id)[:2], samples_of(work, source_id))


def test_parts_are_joined_instead_of_decoding_again(footage: Path, tmp_path: Path) -> None:
    row = row_of(footage)
    whole = outcome(row, work_at(footage, tmp_path / "whole"))
    work = work_at(footage, tmp_path / "parts")
    parts = part_rows(row, work)
    assert len(parts) >= 3
    for part in reversed(parts):
        watch_part_once(part, work)
    assert joined_film(work, source_of(row)) is not None
    (footage / "film.mp4").rename(footage / "elsewhere.mp4")  # it is not needed any more
    assert outcome(row, work) == whole


def test_a_missing_part_means_one_decode_of_the_whole(footage: Path, tmp_path: Path) -> None:
    row = row_of(footage)
    whole = outcome(row, work_at(footage, tmp_path / "whole"))
    work = work_at(footage, tmp_path / "parts")
    for part in part_rows(row, work)[1:]:
        watch_part_once(part, work)
    assert joined_film(work, source_of(row)) is None
    assert outcome(row, work) == whole


def test_small_files_short_films_and_finished_ones_have_no_parts(
    footage: Path, tmp_path: Path
) -> None:
    row = row_of(footage)
    assert joined_film(work_at(footage, tmp_path / "a"), source_of(row)) is None
    assert part_rows(row, work_at(footage, tmp_path / "b", part_s=600)) == []
    finished = work_at(footage, tmp_path / "c")
    outcome(row, finished)
    assert part_rows(row, finished) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"#EXTM3U\n"])
def test_files_that_are_no_film_have_none(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "footage"
    folder.mkdir()
    (folder / "film.mp4").write_bytes(content)
    assert part_rows(row_of(folder), work_at(folder, tmp_path / "set")) == []
