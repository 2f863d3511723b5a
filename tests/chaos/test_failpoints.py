"""Every failpoint of the source is reached, and a kill there leaves nothing half visible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import failpoints
from pipelines.config import RequestError
from tests.chaos.failpoints_in_source import FAILPOINTS
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def test_a_failpoint_has_one_place() -> None:
    assert len(FAILPOINTS) > 30 and len(set(FAILPOINTS)) == len(FAILPOINTS)


def test_killed_or_out_of_space_at_every_failpoint(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos.kill_everywhere", "--folder", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["violations"] == []
    assert sorted(found["struck"]) == FAILPOINTS
    for name, kinds in found["struck"].items():
        assert kinds["kill"] >= 1 and kinds["ENOSPC"] >= 1 and kinds["EIO"] >= 1, name


def test_a_fault_strikes_from_its_nth_pass_on_and_with_a_mark_once(tmp_path: Path) -> None:
    fault = failpoints.Fault("here", 2, error=28)
    fault.strike()
    for _ in range(2):
        with pytest.raises(OSError, match=r"\[Errno 28\].*'here'"):
            fault.strike()
    once = failpoints.Fault("here", 1, error=28, mark=str(tmp_path / "mark"))
    with pytest.raises(OSError, match="here"):
        once.strike()
    once.strike()


@pytest.mark.parametrize(
    "text", ["here", "here:0", "here:1=", "here:1=EWHAT", "Here:1", "here:1:2"]
)
def test_what_makes_no_sense_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, text)
    failpoints.armed.cache_clear()
    try:
        with pytest.raises(RequestError, match="expected NAME:N"):
            failpoints.failpoint("here")
    finally:
        monkeypatch.undo()
        failpoints.armed.cache_clear()
