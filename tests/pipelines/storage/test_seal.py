from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.storage.seal import check_files, hashes_of, sealed_bytes, unsealed

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
VALUES = st.dictionaries(st.text(max_size=6).filter(lambda key: key != "seal"), PLAIN, max_size=4)


@given(VALUES)
def test_what_was_sealed_is_read_back(value: dict[str, Any]) -> None:
    assert unsealed(sealed_bytes(value)) == value


@given(VALUES, st.data())
def test_any_flipped_bit_is_seen(value: dict[str, Any], data: st.DataObject) -> None:
    sealed = bytearray(sealed_bytes(value))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = unsealed(bytes(sealed))
    except ValueError:
        return
    # Only the seal's own name may have gone: what is left is no object that a reader knows.
    assert found.keys() - value.keys() and b'"seal"' not in sealed


def test_every_flipped_bit_of_a_number_that_reads_the_same_is_seen() -> None:
    """1E-05 is 1e-05: only the bytes tell."""
    sealed = sealed_bytes({"rate": 1e-05})
    with pytest.raises(ValueError, match="not those that were written"):
        unsealed(sealed.replace(b"1e-05", b"1E-05"))


def test_what_was_never_sealed_is_taken_as_it_is() -> None:
    assert unsealed(b'{"digest": "0"}') == {"digest": "0"}
    for broken in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(ValueError):
            unsealed(broken)


def test_files_and_parts_are_compared_with_their_hashes(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for name in ("shards.parquet", "clips.parquet/part-0.parquet", "clips.parquet/part-1.parquet"):
        store.write_bytes(name, name.encode())
    files = hashes_of(store, ("clips.parquet", "shards.parquet", "tombstones.parquet"))
    assert sorted(files) == sorted(store.list_files())
    check_files(store, files, "curate again")
    store.write_bytes("clips.parquet/part-1.parquet", b"something else")
    with pytest.raises(RequestError, match=r"part-1\.parquet: damaged.*curate again"):
        check_files(store, files, "curate again")
    store.remove("shards.parquet")
    with pytest.raises(RequestError, match=r"shards\.parquet: missing"):
        check_files(store, {"shards.parquet": "0"}, "curate again")
