"""gs:// against a server that speaks Google's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import RequestError
from pipelines.curation.footage_copies import FootageCopies
from pipelines.curation.ingest import identify, ingest, list_footage
from pipelines.storage import Store
from pipelines.storage.object_store import Overtaken
from pipelines.storage.writer_lock import writer_lock
from tests.servers.faulty_store import Faults, FaultyStore
from tests.servers.google_store import BUCKET, google_store
from tests.servers.object_store import set_in_this_process


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyStore]:
    """What every test asks of the store."""
    with (
        google_store(tmp_path_factory.mktemp("google")) as address,
        FaultyStore(address, Faults(), seed=0) as proxy,
        set_in_this_process({"STORAGE_EMULATOR_HOST": proxy.endpoint}),
    ):
        yield proxy


@pytest.fixture
def bucket(asked: FaultyStore) -> str:
    return f"gs://{BUCKET}"


def test_what_is_written_is_read(bucket: str) -> None:
    store = Store.open(f"{bucket}/set")
    table = pa.table({"n": [1, 2]})
    store.write_bytes("a/b c.bin", b"\x00\x01")
    store.write_json("c.json", {"x": "ä"})
    store.write_table("t.parquet", table)
    assert store.read_bytes("a/b c.bin") == b"\x00\x01"
    assert store.read_range("a/b c.bin", 1, 5) == b"\x01"
    assert store.read_json("c.json") == {"x": "ä"}
    assert store.read_table("t.parquet").equals(table)
    assert store.list_files() == ["a/b c.bin", "c.json", "t.parquet"]
    assert store.list_folders() == ["a"]
    with store.as_local_file("t.parquet") as path:
        assert pq.read_table(path).equals(table)
    store.remove("a")
    assert not store.exists("a/b c.bin") and store.exists("c.json")


def test_the_store_is_asked_to_decide_who_was_first(bucket: str, asked: FaultyStore) -> None:
    """This server does not look at the conditions that Google's enforces: that they are sent is
    what can be shown here."""
    store = Store.open(f"{bucket}/first")
    store.create_bytes("x", b"mine")
    store.create_bytes("x", b"mine")  # an answer that was lost
    with pytest.raises(Overtaken):
        store.create_bytes("x", b"yours")
    version = store.version("x")
    assert version is not None
    store.replace_bytes("x", b"newer", version)
    with pytest.raises(Overtaken):
        store.replace_bytes("x", b"yours", version)
    assert store.read_bytes("x") == b"newer"
    uploads = [path for _, path in asked.requests if "/upload/" in path]
    assert any("ifGenerationMatch=0" in path for path in uploads)
    assert any(f"ifGenerationMatch={version}" in path for path in uploads)
    second = writer_lock(store)
    with writer_lock(store), pytest.raises(RequestError, match="is writing there"), second:
        pass


def test_footage_there_has_the_rows_of_footage_here(bucket: str, tmp_path: Path) -> None:
    there = Store.open(f"{bucket}/footage")
    files = {"a.mp4": b"film", "sp ace.mp4": b"other", "a.json": b'{"license": "x"}'}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        there.write_bytes(name, data)
    copies = FootageCopies(there.uri, str(tmp_path / "set"), 1 << 20)
    found = [identify(f, copies=copies) for f in list_footage(there.uri)]
    copies.clear()
    assert {tuple(s.uris): s for s in found} == {
        tuple(f.source.uris): f.source for f in ingest(str(tmp_path))
    }
