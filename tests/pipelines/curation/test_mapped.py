"""Long arrays in files of no name: what was put in comes out, and a full disk is an error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curation import mapped
from pipelines.curation.clip_ids import IdSet
from pipelines.curation.mapped import SMALL_BYTES, Growing, full, stretches, zeros
from tests.chaos.small_disk import small_disk

MANY = SMALL_BYTES // 8 + 3


@given(st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=9), st.sampled_from([1, 64]))
def test_rows_that_were_added_are_there_in_their_order(told: list[list[int]], small: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapped, "SMALL_BYTES", small)
        column, table = Growing(np.int16), Growing(np.uint8, width=1)
        for values in told:
            column.add(np.array(values, np.int16))
            table.add(np.array(values, np.uint8)[:, None])
        flat = [value for values in told for value in values]
        whole, rows_N1 = column.whole(), table.whole()
    assert whole.tolist() == flat and rows_N1[:, 0].tolist() == flat
    whole += 1
    assert whole.tolist() == [value + 1 for value in flat]


@pytest.mark.parametrize("count", [0, 7, MANY])
def test_an_array_is_full_of_what_was_asked_and_can_be_changed(count: int) -> None:
    ones, pairs_N2 = full(count, -1, np.int64), zeros((count, 2), np.int32)
    assert (ones == -1).all() and len(ones) == count
    pairs_N2[:, 1] = 5
    assert pairs_N2.sum() == 5 * count
    assert (mapped.mapped(ones) == ones).all()
    assert sum(some.stop - some.start for some in stretches(count)) == count


def test_a_long_array_is_a_file_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = _own_kib()
    held = [zeros(16 * SMALL_BYTES, np.uint8) for _ in range(4)]
    for array in held:
        array[:] = 1
    assert _own_kib() - before < 8 * SMALL_BYTES >> 10
    assert list(tmp_path.iterdir()) == []


def _own_kib() -> int:
    """What this process holds in memory that is no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


def test_on_a_full_disk_there_is_an_error_before_the_first_value(tmp_path: Path) -> None:
    """In a process of its own: what is to be ruled out is its death by SIGBUS."""
    with small_disk(tmp_path / "disk", 8) as disk:
        code = (
            "import numpy as np; from pipelines.curation.mapped import zeros; "
            "held = zeros(4 << 20, np.uint8); held[:] = 1; zeros(16 << 20, np.uint8)[:] = 1"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(disk.folder)}, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert f"[Errno {errno.ENOSPC}]" in said and str(disk.folder) in said


@given(
    st.sets(st.binary(min_size=16, max_size=16), max_size=30), st.binary(min_size=16, max_size=16)
)
def test_a_set_of_ids_holds_those_it_was_given(known: set[bytes], other: bytes) -> None:
    ids = IdSet([one.hex() for one in known] + ["a stranger", "", "0" * 31, "G" * 32])
    assert len(ids) == len(known)
    assert all(one.hex() in ids for one in known)
    assert (other.hex() in ids) == (other in known)
    assert "a stranger" not in ids and 7 not in ids
