"""The README's commands are run as they stand there (steps and footage cut down)."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY, Demo, Ended, run_job

README = (REPOSITORY / "README.md").read_text()
# What makes a command quick here; the commands themselves are the README's.
QUICKLY = {
    "train_base.py": ["--steps", "2"],
    "train_refine.py": ["--steps", "1", "--premium-steps", "1"],
    "generate.py": ["--base-steps", "3", "--refine-steps", "2"],
    "evaluate.py": ["--clips", "1", "--base-steps", "3", "--refine-steps", "2"],
    "cascade.py": ["--dry-run"],  # whole: e2e/test_demo.py, e2e/test_cascade_on_object_store.py
}


def commands() -> list[list[str]]:
    """Every command line of the README's console blocks, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def jobs() -> list[list[str]]:
    return [words[1:] for words in commands() if words[0] == ".venv/bin/python"]


def test_the_readme_s_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"demo", "test", "ui"} <= named <= targets


def test_every_job_is_shown_and_has_its_page() -> None:
    shown = {Path(words[0]).stem for words in jobs()}
    made = {p.stem for p in (REPOSITORY / "jobs").glob("*.py")} - {"demo", "ui"}
    assert shown == made
    for page in re.findall(r"jobs/pages/[\w/]+\.(?:md|png)", README):
        assert (REPOSITORY / page).is_file(), page


def test_links_lead_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "jobs" / "pages").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def outputs(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the README's `outputs/`, with the small demo in it."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "demo").mkdir()
    shutil.copytree(demo.footage, folder / "demo" / "footage")
    shutil.copytree(demo.out / "prompt", folder / "demo" / "prompt")
    return folder


@pytest.fixture(scope="module")
def ended(outputs: Path) -> Iterator[dict[str, Ended]]:
    """Every job of the README, run in its order; keyed by the words of the command."""
    results = {}
    for words in jobs():
        script, *arguments = words
        arguments = [re.sub(r"^outputs/", f"{outputs}/", word) for word in arguments]
        if "--list" in arguments:
            arguments[arguments.index("--list") + 1] = str(_takedown_list(outputs))
        quickly = QUICKLY.get(Path(script).name, [])
        # A home of its own: what is taken down here must not stay out of other tests' datasets.
        home = str(outputs / "home")
        results[" ".join(words)] = run_job(script, *arguments, *quickly, I2VGEN_HOME=home)
    yield results


def _takedown_list(outputs: Path) -> Path:
    clips = pq.read_table(outputs / "mine" / "dataset" / "clips.parquet").to_pylist()
    path = outputs / "takedown.txt"
    path.write_text(next(c["clip_id"] for c in clips if c["verdict"] == "kept") + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("words", [" ".join(words) for words in jobs()])
def test_the_command_works(ended: dict[str, Ended], words: str) -> None:
    assert ended[words].code == 0, ended[words].err[-3000:]


@pytest.mark.slow
def test_a_plain_run_gives_the_submitted_run_s_digest(
    ended: dict[str, Ended], outputs: Path, demo: Demo
) -> None:
    plain = json.loads((outputs / "mine" / "dataset" / "dataset.json").read_text())
    submitted = json.loads((demo.dataset / "dataset.json").read_text())
    assert plain["digest"] == submitted["digest"]
    for shard in (demo.dataset / "shards").iterdir():
        assert (outputs / "mine" / "dataset" / "shards" / shard.name).read_bytes() == (
            shard.read_bytes()
        )
