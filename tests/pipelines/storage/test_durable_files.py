from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.curation.commit_log import remove_stale_temporaries
from pipelines.storage import Store
from pipelines.storage.durable_files import appearing, is_being_written, make_folder

WRITE = """
import sys, time
from pathlib import Path
from pipelines.storage.durable_files import appearing
with appearing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def test_it_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file"
    with pytest.raises(OSError, match="disk full"), appearing(target) as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")
    assert list(target.parent.iterdir()) == []
    with appearing(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole" and list(target.parent.iterdir()) == [target]


def test_what_a_living_process_writes_is_no_leftover_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    """The clock was set forward by decades while a job wrote into a shared folder."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path / "commit")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert writer.stdout is not None
    try:
        temporary = Path(writer.stdout.readline().strip())
        os.utime(temporary, (0, 0))
        assert is_being_written(temporary)
        remove_stale_temporaries(Store(str(tmp_path)))
        assert temporary.exists()
    finally:
        writer.kill()
        writer.wait()
    assert not is_being_written(temporary)
    remove_stale_temporaries(Store(str(tmp_path)))
    assert not temporary.exists() and not is_being_written(temporary)


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        make_folder(tmp_path / "file" / "below")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
