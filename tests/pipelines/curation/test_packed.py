"""Very many small records in little memory: in their order, each as it was."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curation.collapse import Footage, collapse, packed
from pipelines.curation.found import Found, sorted_by_name
from pipelines.curation.packed import CHUNK_ITEMS, HELD_CHUNKS, Packed
from pipelines.records import Source, source_id_of

NUMBERS = 3 * CHUNK_ITEMS + 7
#: As Python names files whose names are any bytes.
NAMES = st.binary(min_size=1, max_size=9).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def numbers(count: int) -> Packed[int]:
    return Packed(range(count), lambda n: n, lambda n: int(n))


@given(st.integers(0, NUMBERS), st.integers(-NUMBERS, NUMBERS), st.integers(-NUMBERS, NUMBERS))
def test_it_is_read_as_a_list_is(count: int, start: int, stop: int) -> None:
    there, same = numbers(count), list(range(count))
    assert len(there) == count and list(there) == same
    assert there[start:stop] == same[start:stop]
    assert there[::-1] == same[::-1]
    if -count <= start < count:
        assert there[start] == same[start]
    else:
        with pytest.raises(IndexError):
            there[start]


@given(st.lists(st.tuples(NAMES, st.integers(0, 1 << 62)), max_size=20))
def test_files_of_any_name_come_back_in_order_of_what_they_are_called(
    told: list[tuple[str, int]],
) -> None:
    found = [
        Found(f"{number:03d}", path, size, mtime_ns=size)
        for number, (path, size) in enumerate(told)
    ]
    assert list(sorted_by_name(reversed(found))) == found


@given(st.lists(st.tuples(st.integers(0, 3), NAMES), max_size=12))
def test_copies_are_one_source_however_they_arrive(told: list[tuple[int, str]]) -> None:
    pairs = [
        (
            Found(f"{place:03d}", path, 5),
            Source(source_id_of(f"{content:064x}"), [f"{place:03d}"], 5),
        )
        for place, (content, path) in enumerate(told)
    ]
    there = packed(collapse(pairs))
    assert list(there) == list(packed(collapse(reversed(pairs))))
    assert [one.source.source_id for one in there] == sorted({s.source_id for _, s in pairs})
    assert sorted(uri for one in there for uri in one.source.uris) == [f.uri for f, _ in pairs]
    assert {p for one in there for p in one.paths} == {f.path for f, _ in pairs}


def test_very_many_sources_take_little_memory() -> None:
    """As objects a source is about a thousand bytes."""
    count = 4 * HELD_CHUNKS * CHUNK_ITEMS

    def footage(number: int) -> Footage:
        source_id, path = source_id_of(f"{number:064x}"), f"films/{number:08d}.mp4"
        return Footage(Source(source_id, [path], number), (f"/footage/{path}",))

    tracemalloc.start()
    try:
        there = packed(footage(number) for number in range(count))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 100 * count
    assert there[count - 1] == footage(count - 1)
