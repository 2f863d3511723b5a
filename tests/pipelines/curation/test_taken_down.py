"""Where tombstones are looked for, and what is made of them."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.curation.config import CurateConfig, demo
from pipelines.curation.places import PLACES_SCHEMA
from pipelines.curation.taken_down import (
    TakenDown,
    TakenDownMeanwhile,
    check_nothing_new,
    remember,
    taken_down_before,
)
from pipelines.lineage.tombstones import TOMBSTONE_SCHEMA, TOMBSTONES_TABLE
from pipelines.storage import Store

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def whole(source_id: str, digest: str = "d1") -> dict[str, Any]:
    return dict.fromkeys(TOMBSTONE_SCHEMA.names) | {"source_id": source_id, "from_digest": digest}


def span(source_id: str, start: int, end: int, digest: str = "d1") -> dict[str, Any]:
    frames = {"clip_id": f"{start:032x}", "start_frame": start, "end_frame": end}
    return {**whole(source_id, digest), **frames}


def put(place: Path, *rows: dict[str, Any]) -> str:
    store = Store.open(str(place))
    store.write_table(TOMBSTONES_TABLE, pa.Table.from_pylist(list(rows), schema=TOMBSTONE_SCHEMA))
    return str(place)


def asked(root: Path, takedowns: list[str] | None = None, **changes: Any) -> TakenDown:
    values = {"footage": str(root), "dataset": str(root / "sets" / "new"), **changes}
    config: CurateConfig = dataclasses.replace(demo(), **values)
    return taken_down_before(config, Store.open(config.dataset), takedowns or [])


def sources(found: TakenDown) -> set[str]:
    return {row["source_id"] for row in found.rows}


def test_datasets_beside_the_new_one_are_asked_and_itself_is_not(tmp_path: Path) -> None:
    assert asked(tmp_path).rows == ()
    put(tmp_path / "sets" / "down", whole(A))
    put(tmp_path / "sets" / "new", whole(B))  # an interrupted run's
    put(tmp_path / "elsewhere", whole(C))
    found = asked(tmp_path)
    assert sources(found) == {A} and found.warnings == () and found.named == frozenset()
    assert found.in_force.covers_source(A)


def test_datasets_beside_those_that_the_work_folder_knows_are_asked(tmp_path: Path) -> None:
    put(tmp_path / "far" / "down", whole(A))
    work = Store.open(str(tmp_path / "work"))
    place = dict.fromkeys(PLACES_SCHEMA.names) | {"dataset": str(tmp_path / "far" / "first")}
    work.write_table("places/k/x.parquet", pa.Table.from_pylist([place], schema=PLACES_SCHEMA))
    assert sources(asked(tmp_path)) == set()
    assert sources(asked(tmp_path, work=work.uri)) == {A}


def test_the_work_folder_remembers_what_was_in_force(tmp_path: Path) -> None:
    work = Store.open(str(tmp_path / "work"))
    down = put(tmp_path / "down", span(A, 0, 50))
    remember(work, asked(tmp_path, tombstones=(down,)))
    remember(work, asked(tmp_path, tombstones=(down,)))
    assert len(work.list_files()) == 1
    found = asked(tmp_path, work=work.uri)
    assert found.in_force.covers("x", A, 49, 60) and not found.in_force.covers("x", A, 50, 60)


def test_parent_table_and_takedowns_are_asked(tmp_path: Path) -> None:
    parent = put(tmp_path / "p", whole(A))
    table = f"{put(tmp_path / 't', whole(B))}/{TOMBSTONES_TABLE}"
    tracked = put(tmp_path / "u", whole(C))
    found = asked(tmp_path, [tracked], parent=parent, tombstones=(table,))
    assert sources(found) == {A, B, C} and found.named == {(A, None), (B, None)}
    assert sources(found.of_footage([])) == {A, B}  # what was asked for stays with the dataset
    assert sources(found.of_footage([C])) == {A, B, C}


def test_what_is_gone_or_damaged_is_a_line_and_what_was_named_is_a_wrong_request(
    tmp_path: Path,
) -> None:
    gone, damaged = tmp_path / "gone", tmp_path / "sets" / "damaged"
    damaged.mkdir(parents=True)
    put(tmp_path / "sets" / "down", whole(A))
    strange = pa.table({"source_id": [1], "clip_id": ["x"]})
    for content in (b"PAR1 nothing\n\x1b[31m of the kind PAR1", strange):
        if isinstance(content, bytes):
            (damaged / TOMBSTONES_TABLE).write_bytes(content)
        else:
            Store.open(str(damaged)).write_table(TOMBSTONES_TABLE, content)
        found = asked(tmp_path, [str(gone)])
        assert sources(found) == {A}
        assert [w.count("\n") for w in found.warnings] == [0, 0]
        assert str(gone) in found.warnings[0] and str(damaged) in found.warnings[1]
        with pytest.raises(RequestError, match="cannot be read"):
            asked(tmp_path, tombstones=(str(damaged),))
    with pytest.raises(RequestError, match="no tombstones there"):
        asked(tmp_path, tombstones=(str(gone),))


def test_what_is_taken_down_while_a_job_runs_stops_it_before_it_publishes(tmp_path: Path) -> None:
    config = dataclasses.replace(
        demo(),
        footage=str(tmp_path),
        dataset=str(tmp_path / "sets" / "new"),
        tracking=TrackingConfig(enabled=False),
    )
    store = Store.open(config.dataset)
    put(tmp_path / "sets" / "before", span(A, 0, 50))
    known = taken_down_before(config, store)
    put(tmp_path / "sets" / "meanwhile", span(A, 0, 50), whole(C))
    check_nothing_new(config, store, known, {A, B})  # known, and of other footage
    with pytest.raises(TakenDownMeanwhile, match=r"1 sources or clips .* same command again"):
        check_nothing_new(config, store, known, {A, C})


def test_tracking_that_does_not_answer_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 99)
    config = dataclasses.replace(
        demo(),
        footage=str(tmp_path),
        dataset=str(tmp_path / "sets" / "new"),
        tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
    )
    found = taken_down_before(config, Store.open(config.dataset))
    assert found.rows == () and "tracking cannot be asked" in "".join(found.warnings)


def test_a_table_without_spans_is_one_of_ids(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "sets" / "old"))
    old = {"source_id": [A, B], "clip_id": ["x", None], "from_digest": ["d", "d"]}
    store.write_table(TOMBSTONES_TABLE, pa.table(old))
    found = asked(tmp_path)
    assert found.in_force.covers("x", A, 0, 1) and not found.in_force.covers("y", A, 0, 1)
    assert found.in_force.covers("y", B, 0, 1)
    assert found.table().schema.equals(TOMBSTONE_SCHEMA)


def test_the_digest_says_what_is_out_and_not_by_whom_or_in_which_order(tmp_path: Path) -> None:
    rows = [whole(A, "d2"), span(B, 0, 50, "d2"), span(B, 50, 99, "d2"), whole(A), span(B, 0, 50)]
    digests = set()
    for seed in range(4):
        random.Random(seed).shuffle(rows)
        places = [put(tmp_path / f"{seed}" / f"{n}", row) for n, row in enumerate(rows)]
        found = asked(tmp_path, tombstones=tuple(places))
        digests.add(found.counts()["digest"])
        assert {k: found.counts()[k] for k in ("sources", "clips")} == {"sources": 1, "clips": 2}
        assert [row["from_digest"] for row in found.rows] == ["d1", "d1", "d2"]
    assert len(digests) == 1
