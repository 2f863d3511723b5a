"""`jobs/trace.py` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Ended, run_job
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import Past, past

__all__ = ["past"]


def trace(past: Past, *arguments: str | Path) -> Ended:
    return run_job("jobs/trace.py", *arguments, "--under", past.root)


def test_every_question_has_a_table_and_an_object(past: Past) -> None:
    questions: dict[tuple[str, str | Path], str] = {
        ("source", past.root / "footage" / "alpha.mp4"): "sources",
        ("clip", past.clips_of("alpha.mp4")[0].clip_id): "clip_id",
        ("dataset", past.dataset["uri"]): "digest",
        ("checkpoint", past.root / "refine-x"): "stages",
        ("video", past.root / "video-x.mp4"): "made_with",
    }
    for question, key in questions.items():
        ended = trace(past, *question)
        assert ended.code == 0, ended.err
        assert len(ended.out.splitlines()) > 5
        assert question[0] == "dataset" or "alpha.mp4" in ended.out
        found = trace(past, *question, "--json")
        assert found.code == 0 and key in found.result
        assert len(found.out.splitlines()) == 1


def test_a_digest_is_as_good_as_a_place(past: Past) -> None:
    for kind, digest in (
        ("dataset", past.dataset["digest"]),
        ("checkpoint", past.refine["digest"]),
    ):
        ended = trace(past, kind, digest[:12])
        assert ended.code == 0 and digest[:12] in ended.out, ended.err
    ended = trace(past, "checkpoint", "f" * 12)
    assert ended.code == 2 and "--under" in ended.err


def test_a_checkpoint_may_be_named_by_its_file(past: Past) -> None:
    ended = trace(past, "checkpoint", f"{past.refine['uri']}/checkpoint.json")
    assert ended.code == 0 and "gamma.mp4" in ended.out, ended.err


def test_two_datasets_are_compared(past: Past) -> None:
    world.write_dataset(past.root / "dataset-b", ["alpha.mp4"], past.clips[:4])
    two = (past.dataset["uri"], past.root / "dataset-b")
    assert len(trace(past, "dataset", *two, "--json").result["removed"]) == 6
    assert "removed: 6" in trace(past, "dataset", *two).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("source", "no-such-film.mp4"),
        ("clip", "0" * 32),
        ("dataset", "/nowhere/at/all"),
        ("checkpoint", "/nowhere/at/all"),
        ("video", "/nowhere/at/all.mp4"),
        ("clip", "one", "two"),
        ("flip",),
    ],
)
def test_what_nobody_knows_is_one_line(past: Past, arguments: tuple[str, ...]) -> None:
    ended = trace(past, *arguments)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ") and arguments[-1] in line


def test_a_video_that_says_nothing_of_its_past_is_one_line(past: Past) -> None:
    ended = trace(past, "video", past.root / "footage" / "alpha.mp4")
    assert ended.code == 2 and "nothing says how it was made" in ended.err


def test_nothing_is_created_by_asking(past: Past, tmp_path: Path) -> None:
    home = tmp_path / "home"
    ended = run_job("jobs/trace.py", "dataset", past.dataset["uri"], I2VGEN_HOME=str(home))
    assert ended.code == 0 and not home.exists()
    assert "checkpoint" in ended.out  # found around the dataset
    assert json.loads(Path(past.dataset["uri"], "dataset.json").read_text())["digest"] in ended.out
