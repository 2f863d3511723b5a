from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.curation.commit_log import AttemptCap, CommitLog, commit_key
from pipelines.storage import Store


def test_a_result_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    log = CommitLog(Store.open(str(tmp_path)), "watch", "k")
    assert log.read("a") is None and log.committed() == set()
    log.write("a", pa.table({"clip_id": ["x", "y"]}))
    assert log.read("a") == pa.table({"clip_id": ["x", "y"]})
    assert log.committed() == {"a"}


def test_a_writer_that_dies_leaves_no_result(tmp_path: Path) -> None:
    log = CommitLog(Store.open(str(tmp_path)), "watch", "k")
    with pytest.raises(OSError), log.store.publishing(log.path_of("a")) as half:
        half.write_bytes(b"PAR1 half of it")
        raise OSError("disk full")
    assert not log.has("a") and log.committed() == set()


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
