"""What the runbook quotes is what the code says; what it names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from infra.checks.promql import read_dashboard
from pipelines.records import REASONS
from tests.conftest import REPOSITORY

RUNBOOK = (REPOSITORY / "infra" / "RUNBOOK.md").read_text()
README = (REPOSITORY / "infra" / "README.md").read_text()
FILLED_IN = "\0"
QUOTES = re.findall(r"^> (.+)$", RUNBOOK, re.MULTILINE)


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every text in the code, what f-strings fill in as a mark."""
    rooms = [path for room in ("pipelines", "jobs") for path in (REPOSITORY / room).rglob("*.py")]
    return tuple(text for path in rooms for text in _texts_in(ast.parse(path.read_text())))


def _texts_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sd]", FILLED_IN, node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else FILLED_IN for v in node.values)
            yield "".join(map(str, parts))


@pytest.mark.parametrize("quote", QUOTES)
def test_every_quoted_line_is_said_by_the_code(quote: str) -> None:
    assert any(_says(text, quote) for text in texts_of_the_code())


def _says(text: str, quote: str) -> bool:
    """The quote's words in their order, where it has … whatever is filled in."""
    parts = [re.escape(part) for part in quote.split("…")]
    return re.search("[^.]*?".join(parts) if len(parts) > 1 else parts[0], text) is not None


def test_a_line_that_nobody_says_would_be_noticed() -> None:
    assert not any(_says(text, "the moon is full…; howl") for text in texts_of_the_code())
    assert len(QUOTES) > 15


def test_the_panels_and_reasons_that_it_names_are_there() -> None:
    board = read_dashboard(REPOSITORY / "infra" / "grafana" / "dashboards" / "i2vgen-ray.json")
    titles = {panel["title"] for panel in board["panels"]}
    named = set(re.findall(r"\*([A-Z][^*\n]+)\*(?!\*)", re.sub(r"\*\*[^*]+\*\*", "", RUNBOOK)))
    of_kubernetes = {"violates PodSecurity", "Insufficient nvidia.com/gpu"}
    assert named & titles and named - of_kubernetes <= titles
    snakes = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", RUNBOOK))
    assert snakes - {"scratch_gib"} <= set(REASONS)


@pytest.mark.parametrize("text", [RUNBOOK, README], ids=["runbook", "readme"])
def test_the_files_that_are_named_are_there(text: str) -> None:
    named = set(re.findall(r"\b((?:infra|jobs|pipelines|tests)/[\w./-]+\.\w+)\b", text))
    assert named and all((REPOSITORY / name).exists() for name in named)


def test_the_settings_that_it_names_are_there() -> None:
    settings = set(re.findall(r"`(?:--)?((?:loop|limits|resources|captions)\.[a-z_]+)\b", RUNBOOK))
    code = "\n".join(
        Path(REPOSITORY / "pipelines" / name).read_text()
        for name in ("training/config.py", "curation/resources.py", "curation/limits.py")
    )
    assert settings
    for setting in settings:
        assert re.search(rf"^    {setting.partition('.')[2]}\b", code, re.MULTILINE), setting
