"""Wrong requests: one clear line, exit 2, no traceback (issue 2, part 6)."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import Demo, Ended, run_job


def assert_refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, (ended.code, ended.err[-2000:])
    assert ended.out == ""
    assert "Traceback" not in ended.err
    (line,) = [text for text in ended.err.splitlines() if text.startswith("error: ")]
    for word in words:
        assert word in line, line


@pytest.fixture(scope="module")
def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    (tmp_path / "footage").mkdir()
    (tmp_path / "footage" / "a.mp4").write_bytes(b"not a film")
    return tmp_path / "footage"


JOBS = [
    *("curate", "encode", "train_base", "train_refine", "generate", "evaluate"),
    *("trace", "takedown", "cascade", "demo", "ui", "replay"),
]


@pytest.mark.parametrize("job", JOBS)
def test_help_is_quick_and_names_units_and_defaults(job: str) -> None:
    ended = run_job(f"jobs/{job}.py", "--help")
    assert ended.code == 0, ended.err
    assert "usage:" in ended.out and len(ended.out.splitlines()) > 5


@pytest.mark.parametrize("job", JOBS)
def test_an_unknown_setting_is_refused(job: str) -> None:
    assert_refused(run_job(f"jobs/{job}.py", "--no-such-setting", "1"))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    ended = run_job("jobs/curate.py", "--footage", tmp_path / "no", "--dataset", tmp_path / "d")
    assert_refused(ended, str(tmp_path / "no"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = run_job("jobs/curate.py", "--footage", tmp_path / "empty", "--dataset", tmp_path / "d")
    assert_refused(ended, "empty")


def test_a_wrong_value_is_refused(footage: Path, tmp_path: Path) -> None:
    ended = run_job(
        "jobs/curate.py",
        *("--footage", footage, "--dataset", tmp_path / "d"),
        *("--limits.min_duration_s", "soon"),
    )
    assert_refused(ended, "min_duration_s", "'soon' is not a number")


def test_an_unreachable_ray_is_refused(footage: Path, tmp_path: Path, closed_port: int) -> None:
    ended = run_job(
        "jobs/curate.py",
        *("--footage", footage, "--dataset", tmp_path / "d"),
        RAY_ADDRESS=f"127.0.0.1:{closed_port}",
    )
    assert_refused(ended, f"127.0.0.1:{closed_port}", "nothing answers")


@pytest.mark.parametrize("uri", ["sqlite:///here.db", "http://", "ftp://server"])
def test_a_place_that_can_never_be_tracked_to_is_refused(
    uri: str, footage: Path, tmp_path: Path
) -> None:
    arguments = ("--footage", footage, "--dataset", tmp_path / "d", "--tracking.uri", uri)
    assert_refused(run_job("jobs/curate.py", *arguments), "tracking")


@pytest.mark.slow
def test_a_complete_dataset_is_refused(demo: Demo) -> None:
    ended = run_job("jobs/curate.py", "--footage", demo.footage, "--dataset", demo.dataset)
    assert_refused(ended, "complete")


@pytest.mark.slow
def test_a_checkpoint_of_the_wrong_stage_is_refused(demo: Demo, tmp_path: Path) -> None:
    latents = next(path for path in demo.result["latents"] if "refine" in path)
    ended = run_job(
        "jobs/train_refine.py",
        *("--latents", latents, "--checkpoints", tmp_path / "c", "--base", demo.result["refine"]),
    )
    assert_refused(ended, "refine")


@pytest.mark.slow
def test_latents_of_the_wrong_stage_are_refused(demo: Demo, tmp_path: Path) -> None:
    latents = next(path for path in demo.result["latents"] if "refine" in path)
    ended = run_job("jobs/train_base.py", "--latents", latents, "--checkpoints", tmp_path / "c")
    assert_refused(ended, "refine")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"), [("missing.png", "missing.png"), ("words.txt", "words.txt")]
)
def test_what_is_no_picture_is_refused(demo: Demo, tmp_path: Path, given: str, words: str) -> None:
    (tmp_path / "words.txt").write_text("not a picture")
    ended = run_job(
        "jobs/generate.py",
        *("--base", demo.result["base"], "--refine", demo.result["refine"]),
        *("--image", tmp_path / given, "--prompt", "a red circle", "--out", tmp_path / "v.mp4"),
    )
    assert_refused(ended, words)
