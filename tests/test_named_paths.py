"""Files that our words name are there: a page that points to where something was helps nobody."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import REPOSITORY

ROOMS = ("pipelines", "model", "jobs", "infra", "notebooks", "tests")
NAMED = re.compile(
    rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w./-]*?\w\.(?:py|md|yaml|json|png|ipynb)\b"
)


def written() -> list[Path]:
    inside = (REPOSITORY / room for room in ROOMS)
    return [REPOSITORY / "README.md"] + [
        path for room in inside for kind in ("*.md", "*.py") for path in sorted(room.rglob(kind))
    ]


def named_in(text: str) -> set[str]:
    return {name for name in NAMED.findall(text) if "..." not in name}


def test_every_file_that_is_named_is_there() -> None:
    missing = {
        (str(path.relative_to(REPOSITORY)), name)
        for path in written()
        for name in named_in(path.read_text())
        if not (REPOSITORY / name).exists()
    }
    assert not missing


def test_names_are_found_in_words() -> None:
    words = "see `jobs/pages/curate.md` and (pipelines/job.py); but not a/jobs/x.py or jobs/x"
    assert named_in(words) == {"jobs/pages/curate.md", "pipelines/job.py"}
