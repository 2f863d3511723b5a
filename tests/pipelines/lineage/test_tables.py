from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.lineage.tables import Choice, Tables, as_pattern, quoted
from pipelines.storage import Store

TABLE = "clips.parquet"
TABLES = Tables()  # for what leaves nothing behind
ODD_NAMES = (
    "out [1]",
    "back\\slash",
    "a*b",
    "what?",
    "it's",
    "[!x]",
    "[[]",
    "{a,b}",
    "50%",
    "ü é",
    "$HOME ~",
)


def ids(count: int, start: int = 0) -> list[str]:
    return [f"{number:032x}" for number in range(start, start + count)]


def write(store: Store, clip_ids: Sequence[str], name: str = TABLE) -> str:
    """Returns the URI of the store; each clip is of a source that has its last three digits."""
    sources = [clip_id[-3:] for clip_id in clip_ids]
    strings = pa.schema([("clip_id", pa.string()), ("source_id", pa.string())])
    store.write_table(name, pa.table([list(clip_ids), sources], schema=strings))
    return store.uri


def clips_in(tables: Tables, *uris: str, where: str = "true") -> list[str]:
    scan = tables.scan([(uri, TABLE) for uri in uris])
    return [row["clip_id"] for row in tables.rows(f"SELECT clip_id FROM {scan} WHERE {where}")]


@pytest.fixture(params=["local", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return "memory://bucket"


# --- places ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_no_pattern(root: str, name: str) -> None:
    """Its neighbours, which it would fit as a pattern, are not read."""
    uri = write(Store.open(f"{root}/{name}"), ids(1))
    for neighbour in ("out 1", "aXb", "whatX", "its", "y", "[", "a", "b"):
        write(Store.open(f"{root}/{neighbour}"), ids(1, 7))
    assert clips_in(Tables(), uri) == ids(1)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_row_tells_its_place(root: str, name: str) -> None:
    """Rows of several places come from one pass, and are told apart."""
    uris = [write(Store.open(f"{root}/{name}/step {n}"), ids(2, n)) for n in range(3)]
    (gone,) = ids(1, 1)
    found = Tables().rows_by_place(uris, TABLE, "clip_id", f"clip_id <> '{gone}'", "clip_id")
    shown = {uri: [row["clip_id"] for row in rows] for uri, rows in found.items()}
    expected = {uri: [i for i in ids(2, n) if i != gone] for n, uri in enumerate(uris)}
    assert shown == expected


def test_no_place_has_no_rows() -> None:
    assert Tables().rows_by_place([], TABLE, "clip_id", "true") == {}


def test_a_column_that_an_older_table_lacks_is_null(tmp_path: Path) -> None:
    new, old = (Store.open(str(tmp_path / name)) for name in ("new", "old"))
    new.write_table(TABLE, pa.table({"clip_id": ["a"], "consent": ["yes"]}))
    old.write_table(TABLE, pa.table({"clip_id": ["a"]}))
    found = Tables().rows_by_place([new.uri, old.uri], TABLE, "consent", "true")
    assert found == {new.uri: [{"consent": "yes"}], old.uri: [{"consent": None}]}


@given(st.text("[]*?!{}'\"\\ax", max_size=12))
def test_every_text_is_a_literal(text: str) -> None:
    assert TABLES.rows(f"SELECT {quoted(text)} AS same") == [{"same": text}]
    if "\\" not in text:  # in a GLOB it escapes; in a path it does not
        pattern = quoted(as_pattern(text))
        assert TABLES.rows(f"SELECT {quoted(text)} GLOB {pattern} AS fits") == [{"fits": True}]
    assert re.sub(r"\[([\[*?])\]", r"\1", as_pattern(text)) == text


def test_many_places_are_one_table(root: str) -> None:
    uris = [write(Store.open(f"{root}/{n}"), ids(2, 10 * n)) for n in range(30)]
    assert sorted(clips_in(Tables(), *uris)) == sorted(i for n in range(30) for i in ids(2, 10 * n))


def test_a_folder_of_parts_is_one_table(root: str) -> None:
    store = Store.open(f"{root}/set [1]")
    for part in (2, 0, 1):
        write(store, ids(3, 10 * part), f"{TABLE}/part-{part}.parquet")
    store.write_bytes(f"{TABLE}/_SUCCESS", b"")
    store.write_bytes(f"{TABLE}/.tmp-0123-part-3.parquet", b"half a part of a killed writer")
    other = write(Store.open(f"{root}/other"), ids(1, 99))
    found = clips_in(Tables(), store.uri, other)
    assert sorted(found) == [*ids(3), *ids(3, 10), *ids(3, 20), *ids(1, 99)]


def test_a_table_without_rows_is_a_table(root: str) -> None:
    uri = write(Store.open(f"{root}/empty"), [])
    assert clips_in(Tables(), uri) == []


# --- choices -----------------------------------------------------------------------------------


def test_an_empty_choice_is_no_row(root: str) -> None:
    uri = write(Store.open(f"{root}/set"), ids(5))
    tables = Tables()
    assert clips_in(tables, uri, where=tables.where(Choice())) == []
    assert clips_in(tables, uri, where=f"NOT {tables.where(Choice())}") == ids(5)


def test_a_choice_of_thousands_is_exact(root: str) -> None:
    uri = write(Store.open(f"{root}/set"), ids(30_000))
    chosen = random.Random(0).sample(ids(30_000), 10_000)
    strangers = ids(5_000, 90_000)
    tables = Tables()
    where = tables.where(Choice(clip_ids=frozenset(chosen + strangers)))
    assert clips_in(tables, uri, where=where) == sorted(chosen)
    assert len(where) < 200  # the ids are a table, no text of a query


def test_sources_and_clips_are_chosen_together(root: str) -> None:
    uri = write(Store.open(f"{root}/set"), ids(5_000))
    tables = Tables()
    choice = Choice(frozenset(["00a"]), frozenset(ids(2)))
    expected = [i for i in ids(5_000) if i.endswith("00a") or i in ids(2)]
    assert clips_in(tables, uri, where=tables.where(choice)) == expected


def test_an_id_is_never_read_as_sql() -> None:
    odd = frozenset(["'); DROP TABLE chosen_clips; --", "it's", "\\", "", "$1", "ü\u2028"])
    tables = Tables()
    tables.where(Choice(clip_ids=odd))
    assert {row["id"] for row in tables.rows("SELECT id FROM chosen_clips")} == odd


def test_the_last_choice_holds() -> None:
    tables = Tables()
    for clip_ids in (ids(3), ids(2), ids(3), ids(3)):
        tables.where(Choice(clip_ids=frozenset(clip_ids)))
        assert [r["id"] for r in tables.rows("SELECT id FROM chosen_clips ORDER BY id")] == clip_ids


# --- what cannot be read -------------------------------------------------------------------------


def test_a_table_that_is_not_there_is_named(root: str) -> None:
    store = Store.open(f"{root}/set [1]")
    store.write_bytes("dataset.json", b"{}")
    place = re.escape(f"{store.uri}/{TABLE}: not found")
    with pytest.raises(RequestError, match=f"^{place}"):
        Tables().scan([(store.uri, TABLE)])
    store.write_bytes(f"{TABLE}/.tmp-0123-part-0.parquet", b"half")
    with pytest.raises(RequestError, match=f"^{place}"):
        Tables().scan([(store.uri, TABLE)])


def damaged(kind: str, whole: bytes) -> bytes:
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    return {
        "empty": b"",
        "other": b"no parquet, but a text of some length " * 9,
        "cut": whole[: len(whole) // 2],
        "no end": whole[:-8] + bytes(8),
        "end too far": whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        "pages": whole[:4] + b"\xff" * 60 + whole[64:],
        "footer": whole[:footer] + b"\xff" * 40 + whole[footer + 40 :],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["empty", "other", "cut", "no end", "end too far", "pages", "footer"]
)
def test_a_damaged_file_among_whole_ones_is_named_in_one_line(root: str, kind: str) -> None:
    uris = [write(Store.open(f"{root}/set [{n}]"), ids(500, 1000 * n)) for n in range(3)]
    broken = Store.open(uris[1])
    broken.write_bytes(TABLE, damaged(kind, broken.read_bytes(TABLE)))
    with pytest.raises(RequestError) as caught:
        clips_in(Tables(), *uris)
    message = str(caught.value)
    assert message.startswith(f"{broken.path(TABLE)}: not readable") and "\n" not in message
    assert not any(uri in message for uri in (uris[0], uris[2]))


def test_whatever_is_damaged_is_an_answer_or_a_reason(tmp_path: Path) -> None:
    """Hundreds of ways to damage a file: never another error, and never a hang."""
    store = Store.open(str(tmp_path / "set"))
    whole = Path(Store(write(store, ids(3000))).path(TABLE)).read_bytes()
    source, refused = random.Random(1), 0
    for number in range(60):
        data = bytearray(whole)
        first = len(data) - 1200 if number % 2 else 0
        place = source.randrange(first, len(data) - 8)
        data[place : place + 8] = source.randbytes(8)
        Path(store.path(TABLE)).write_bytes(bytes(data))
        try:
            clips_in(Tables(), store.uri)
        except RequestError as error:
            refused += 1
            assert str(error).startswith(f"{store.uri}/{TABLE}: ") and "\n" not in str(error)
    assert refused > 10


def test_a_table_of_other_columns_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"number": [1]}), other / TABLE)
    with pytest.raises(
        RequestError, match=rf'^{other}/{TABLE}: not readable .*"clip_id" not found'
    ):
        clips_in(Tables(), str(other))


def test_tables_go_on_after_a_damaged_file(root: str) -> None:
    whole, broken = (write(Store.open(f"{root}/{n}"), ids(3)) for n in ("whole", "broken"))
    Store.open(broken).write_bytes(TABLE, b"x" * 99)
    tables = Tables()
    with pytest.raises(RequestError):
        clips_in(tables, broken)
    assert clips_in(tables, whole) == ids(3)


def test_a_fault_of_the_query_is_not_laid_to_the_files() -> None:
    with pytest.raises(duckdb.ParserException):
        Tables().rows("SELEKT 1")


def test_a_scan_of_nothing_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no table"):
        Tables().scan([])
