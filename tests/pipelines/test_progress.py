"""The progress line: complete sentences in a log, and time in words."""

from __future__ import annotations

import threading
import time

import pytest

from pipelines import progress
from pipelines.progress import Progress, in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")],
)
def test_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_log_gets_whole_lines_with_the_figures(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    with Progress(3, "files", "watching") as bar:
        bar.advance(clips_kept=2)
        bar.advance(2, clips_kept=5)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("watching: 1/3 files, 0 s, 0 s left") and "clips kept 2" in first
    assert last == "watching: 3/3 files, 0 s, clips kept 5"


def test_nothing_to_do_is_one_line(capsys: pytest.CaptureFixture) -> None:
    Progress(0, "files", "watching").close()
    assert capsys.readouterr().err == "watching: 0/0 files, 0 s\n"


def test_work_that_hangs_says_so_ever_less_often_and_then_is_quiet(
    capsys: pytest.CaptureFixture,
) -> None:
    with Progress(3, "files", "watching", quiet_s=0.2) as bar:
        bar.advance()
        time.sleep(1.0)  # said after 0.2 s and 0.4 s and 0.8 s
    threads = threading.active_count()
    *quiet, last = capsys.readouterr().err.splitlines()
    assert 1 <= len(quiet) <= 3, quiet
    assert all(
        line.startswith("watching: 1/3 files") and "; nothing has ended for " in line
        for line in quiet
    )
    assert "nothing has ended" not in last
    with Progress(3, "files", "watching", quiet_s=60.0) as bar:
        bar.advance(3)
    assert threading.active_count() <= threads + 1
    assert "nothing has ended" not in capsys.readouterr().err
