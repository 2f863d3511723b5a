"""Publishing: a file appears whole or not at all, locally and in an object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from pipelines.config import RequestError
from pipelines.storage import Store, absolute_uri, sha256_of_bytes, sha256_of_file


@pytest.fixture(params=["local", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(str(tmp_path / "set"))
    fsspec.filesystem("memory").store.clear()
    return Store.open("memory://bucket/set")


def test_what_is_written_is_read(store: Store) -> None:
    store.write_bytes("a/b.bin", b"\x00\x01")
    store.write_json("c.json", {"x": [1, None, "ä"]})
    table = pa.table({"n": [1, 2]})
    store.write_table("t.parquet", table)
    assert store.read_bytes("a/b.bin") == b"\x00\x01"
    assert store.read_json("c.json") == {"x": [1, None, "ä"]}
    assert store.read_table("t.parquet").equals(table)
    assert store.list_files() == ["a/b.bin", "c.json", "t.parquet"]
    assert store.list_files("a") == ["a/b.bin"]
    assert store.exists("c.json") and not store.exists("d.json")
    with store.as_local_file("a/b.bin") as path:
        assert path.read_bytes() == b"\x00\x01"
        assert sha256_of_file(path) == sha256_of_bytes(b"\x00\x01")
    store.remove("c.json")
    assert not store.exists("c.json")


def test_a_failed_publish_leaves_the_old_file_and_nothing_else(store: Store) -> None:
    store.write_bytes("x", b"old")
    with pytest.raises(ZeroDivisionError), store.publishing("x") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert store.read_bytes("x") == b"old"
    assert store.list_files() == ["x"]


def test_parts_under_one_name_read_as_one_table(store: Store) -> None:
    store.write_table("t.parquet/part-0.parquet", pa.table({"n": [1]}))
    store.write_table("t.parquet/part-1.parquet", pa.table({"n": [2]}))
    assert store.read_table("t.parquet")["n"].to_pylist() == [1, 2]


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?"])
def test_what_is_removed_is_the_file_of_that_name_and_what_lies_below(
    store: Store, name: str
) -> None:
    """fsspec takes a path that it removes for a pattern, and these fit others."""
    for relative in (f"{name}/x", f"{name}/deep [2]/y", f"{name}.txt", "a1/x", "ab", "a1.txt"):
        store.write_bytes(relative, b"data")
    store.remove(name)
    store.remove(f"{name}.txt")
    store.remove("not there")
    assert store.list_files() == ["a1.txt", "a1/x", "ab"]


def test_a_killed_writer_leaves_nothing_visible(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pipelines.storage import Store\n"
        "with Store.open(sys.argv[1]).publishing('x') as t:\n"
        "    t.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    store = Store.open(str(tmp_path))
    assert store.list_files() == []
    store.remove_temporaries()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot write here"):
        Store.open(str(tmp_path / "file" / "set")).check_writable()


def test_an_unknown_store_is_refused_in_one_line() -> None:
    with pytest.raises(RequestError, match="cannot be reached"):
        Store.open("nowhere://bucket/set")


def test_a_local_uri_is_absolute_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("x/y") == str(tmp_path / "x" / "y")
    assert absolute_uri(f"file://{tmp_path}") == str(tmp_path)
    assert absolute_uri("s3://bucket/x/") == "s3://bucket/x"


def test_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pipelines.storage import Store\n"
        "s = Store.open(sys.argv[1])\n"
        "for _ in range(40): s.write_bytes('x', sys.argv[2].encode() * 100_000)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), letter]) for letter in "ab"
    ]
    seen = set()
    while any(w.poll() is None for w in writers):
        if (tmp_path / "x").exists():
            data = (tmp_path / "x").read_bytes()
            assert len(data) == 100_000 and len(set(data)) == 1
            seen.add(data[:1])
        time.sleep(0.001)
    assert all(w.returncode == 0 for w in writers) and seen


def test_folders_right_below_are_listed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for name in ("b/x.txt", "a/deep/y.txt", "file.txt"):
        store.write_bytes(name, b"1")
    assert store.list_folders() == ["a", "b"]
    assert Store(store.path("nowhere")).list_folders() == []
    assert Store(store.path("file.txt")).list_folders() == []
