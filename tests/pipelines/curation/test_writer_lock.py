from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.config import RequestError
from pipelines.curation import writer_lock as locks
from pipelines.curation.writer_lock import LOCK_FILE, writer_lock
from pipelines.storage import Store

HOLD = """
import sys, time
from pipelines.curation.writer_lock import writer_lock
from pipelines.storage import Store
with writer_lock(Store.open(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_live_writer_is_respected_and_a_killed_one_is_not(tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parents[3]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=repository
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RequestError, match=f"process {holder.pid} on"):  # noqa: SIM117
            with writer_lock(Store.open(str(tmp_path))):
                pass
    finally:
        holder.kill()
        holder.wait()
    with writer_lock(Store.open(str(tmp_path))):
        assert (tmp_path / LOCK_FILE).exists()


def test_in_an_object_store_a_lock_that_no_longer_beats_is_taken_over() -> None:
    store = Store.open("memory://lock-test/set")
    store.write_json(LOCK_FILE, {"pid": 7, "host": "elsewhere", "alive_s": time.time()})
    with pytest.raises(RequestError, match="process 7 on elsewhere"), writer_lock(store):
        pass
    stale = time.time() - locks.STALE_AFTER_S - 1
    store.write_json(LOCK_FILE, {"pid": 7, "host": "elsewhere", "alive_s": stale})
    with writer_lock(store):
        assert store.read_json(LOCK_FILE)["pid"] != 7
        with pytest.raises(RequestError, match="writing this dataset"), writer_lock(store):
            pass
    assert not store.exists(LOCK_FILE)
