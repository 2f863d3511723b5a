from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.storage.writer_lock import LOCK_FILE, writer_lock

HOLD = """
import sys, time
from pipelines.storage import Store
from pipelines.storage.writer_lock import writer_lock
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
