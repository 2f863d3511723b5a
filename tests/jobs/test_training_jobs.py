"""The training jobs as a user runs them: what is wrong is said in one line, with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.media import write_image
from tests.conftest import run_job
from tests.pipelines.training.small_dataset import picture
from tests.pipelines.training.synthetic_latents import write_latents


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of the demo's sizes for both stages, of random numbers."""
    folder = tmp_path_factory.mktemp("latents")
    write_latents(folder / "base", size=(16, 28), lengths=[1, 33, 33, 33] * 4)
    write_latents(folder / "refine", "refine", size=(45, 80), lengths=[1, 17])
    return folder


def refused(*arguments: str | Path, **environment: str) -> str:
    """Runs a job that must refuse, and returns the one line it says."""
    ended = run_job(*arguments, timeout_s=120, **environment)
    assert ended.code == 2, ended.err
    assert ended.out == ""
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), ended.err
    return lines[0]


def test_missing_inputs_are_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    line = refused("jobs/encode.py", "--dataset", nothing, "--latents", tmp_path / "l")
    assert "no dataset.json there" in line
    line = refused("jobs/train_base.py", "--latents", nothing, "--checkpoints", tmp_path / "c")
    assert "no latents.json there" in line
    given = ("--latents", nothing, "--checkpoints", tmp_path / "c", "--base", nothing)
    assert "no checkpoint there" in refused("jobs/train_refine.py", *given)


def test_latents_of_the_wrong_stage_are_refused(latents: Path, tmp_path: Path) -> None:
    given = ("--latents", latents / "refine", "--checkpoints", tmp_path)
    assert "latents of the refine stage" in refused("jobs/train_base.py", *given)


def test_an_unreachable_cluster_is_refused(latents: Path, tmp_path: Path) -> None:
    given = ("--latents", latents / "base", "--checkpoints", tmp_path)
    line = refused("jobs/train_base.py", *given, "--cluster.address", "127.0.0.1:1")
    assert "127.0.0.1:1" in line


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    given = ("--base", "b", "--refine", "none", "--prompt", "p", "--out", tmp_path / "v.mp4")
    assert "no such file" in refused("jobs/generate.py", *given, "--image", tmp_path / "i.png")


@pytest.mark.slow
def test_a_base_is_trained_and_generates(latents: Path, tmp_path: Path) -> None:
    """Train on a local Ray, look at the dry run of what would follow, generate."""
    training = (
        "jobs/train_base.py",
        "--latents",
        latents / "base",
        "--checkpoints",
        tmp_path / "c",
    )
    dry = run_job(*training, "--steps", "2", "--dry-run")
    assert dry.code == 0 and "joint 2 steps" in dry.err
    assert not (tmp_path / "c" / "latest.json").exists()

    ended = run_job(*training, "--steps", "2", "--cluster.address", "local")
    assert ended.code == 0, ended.err
    assert {"checkpoint", "step", "loss", "samples_seen", "run_id", "seconds"} <= set(ended.result)
    assert ended.result["step"] == 2
    assert "training (base): 2/2 steps" in ended.err
    latest = json.loads((tmp_path / "c" / "latest.json").read_text())
    assert latest["finished"] is True

    again = refused(*training, "--steps", "2", "--cluster.address", "local")
    assert "already trained to step 2" in again

    write_image(tmp_path / "image.png", picture(0, 0))
    given = ("--base", tmp_path / "c", "--refine", "none", "--image", tmp_path / "image.png")
    words = ("--prompt", "a red circle moving left", "--out", tmp_path / "video.mp4")
    line = refused("jobs/generate.py", *given, *words)
    # These latents come from no real encoder, and that is noticed.
    assert "trained on latents of another vae" in line
