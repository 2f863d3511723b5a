from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.curation.commit_log import (
    AttemptCap,
    CommitLog,
    commit_key,
    remove_stale_temporaries,
)
from pipelines.storage import Store


def test_a_result_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    log = CommitLog(Store.open(str(tmp_path)), "watch", "k")
    assert log.read("a") is None and set(log.committed()) == set()
    log.write("a", pa.table({"clip_id": ["x", "y"]}))
    assert log.read("a") == pa.table({"clip_id": ["x", "y"]})
    assert set(log.committed()) == {"a"}


def test_a_writer_that_dies_leaves_no_result(tmp_path: Path) -> None:
    log = CommitLog(Store.open(str(tmp_path)), "watch", "k")
    with pytest.raises(OSError), log.store.publishing(log.path_of("a")) as half:
        half.write_bytes(b"PAR1 half of it")
        raise OSError("disk full")
    assert not log.has("a") and set(log.committed()) == set()


def test_configurations_do_not_see_each_other(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    one, other = (CommitLog(store, "watch", commit_key("watch", {"fps": n})) for n in (1, 2))
    one.write("a", pa.table({"n": [1]}))
    assert one.has("a") and not other.has("a")


def test_every_stage_has_its_own_key() -> None:
    assert len({commit_key(stage, 1) for stage in ("watch", "captions", "scores")}) == 3
    assert commit_key("watch", 1, 2) != commit_key("watch", 12)


def test_work_that_kills_its_worker_is_given_up_but_not_across_runs(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    first = AttemptCap(store, "run-1", 2)
    assert [first.begin("watch", "a") for _ in range(3)] == [True, True, False]
    assert first.begin("watch", "b")
    assert AttemptCap(store, "run-2", 2).begin("watch", "a")


def test_what_two_jobs_add_is_all_there_and_equal_rows_once(tmp_path: Path) -> None:
    log = CommitLog(Store.open(str(tmp_path)), "captions", "k")
    for ids in (["x", "y"], ["y", "z"], ["x", "y"]):
        log.add("a", pa.table({"clip_id": ids}))
    parts = [part["clip_id"].to_pylist() for part in log.read_parts("a")]
    assert sorted(parts) == [["x", "y"], ["y", "z"]]
    assert list(log.read_parts("b")) == [] and log.read("a") is None


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros"])
def test_a_damaged_commit_is_none(tmp_path: Path, damage: str) -> None:
    log = CommitLog(Store.open(str(tmp_path)), "watch", "k")
    log.write("a", pa.table({"clip_id": [f"{i}" for i in range(5000)]}))
    path = tmp_path / log.path_of("a")
    data = path.read_bytes()
    zeros = data[:40] + bytes(len(data) // 2) + data[40 + len(data) // 2 :]
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "zeros": zeros}[damage])
    assert log.read("a") is None
    log.write("a", pa.table({"clip_id": ["x"]}))
    assert log.read("a") == pa.table({"clip_id": ["x"]})


def test_only_old_temporaries_are_cleared_from_a_shared_folder(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    (tmp_path / "watch").mkdir()
    old, young = tmp_path / "watch" / ".tmp-old-a", tmp_path / "watch" / ".tmp-young-b"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    remove_stale_temporaries(store)
    assert not old.exists() and young.exists()
