"""Imports run one way (design: "The rooms"), and each door has one keeper."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CODE = sorted(
    p for room in ("pipelines", "model", "jobs") for p in (REPOSITORY / room).rglob("*.py")
)


def imported_by(path: Path) -> Iterator[str]:
    """Full names of every module imported anywhere in the file, late imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(room: str, *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in CODE
        if path.relative_to(REPOSITORY).as_posix().startswith(room)
        for name in imported_by(path)
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("model/", ("ray", "mlflow", "jobs", "pipelines.curation", "pipelines.training")),
        ("pipelines/", ("jobs",)),
        ("pipelines/curation/", ("pipelines.training", "pipelines.cascade")),
        (
            "pipelines/training/",
            ("pipelines.curation", "pipelines.cascade", "pipelines.generation"),
        ),
        ("pipelines/training/latents/", ("pipelines.training.loop", "pipelines.training.feed")),
        ("pipelines/training/feed/", ("pipelines.training.loop", "pipelines.training.checkpoints")),
        ("pipelines/generation/", ("pipelines.curation", "pipelines.cascade", "ray")),
        ("pipelines/lineage/", ("pipelines.curation", "pipelines.training", "pipelines.cascade")),
        ("pipelines/world/", ("pipelines.curation", "pipelines.training", "ray", "mlflow")),
        ("pipelines/media/", ("pipelines.curation", "pipelines.training", "ray", "mlflow")),
    ],
)
def test_no_import_runs_backwards(room: str, forbidden: tuple[str, ...]) -> None:
    assert offenders(room, *forbidden) == []


def test_the_rooms_that_the_others_stand_on_import_nothing_above_them() -> None:
    above = ("pipelines.curation", "pipelines.training", "pipelines.lineage", "ray", "mlflow")
    for name in ("records.py", "storage/", "config/", "job.py", "progress.py", "sandbox/"):
        assert any(
            str(path.relative_to(REPOSITORY)).startswith(f"pipelines/{name}") for path in CODE
        )
        assert offenders(f"pipelines/{name}", *above) == []


def test_mlflow_is_imported_in_one_file() -> None:
    found = {line.split(" ")[0] for line in offenders("", "mlflow")}
    assert found == {"pipelines/lineage/tracking.py"}


def test_ffmpeg_and_pyav_are_touched_in_one_room() -> None:
    found = {line.split(" ")[0] for line in offenders("", "av", "ffmpeg", "imageio_ffmpeg")}
    assert found and all(path.startswith("pipelines/media") for path in found)
