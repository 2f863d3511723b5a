"""The failpoints that the code has, read from its source: a new one is tested by being there."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def failpoints_in(folder: Path) -> list[str]:
    """Every literal that `failpoint(...)` is called with, in order of name."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "failpoint"
                and isinstance(node.args[0], ast.Constant)
            ):
                found.append(str(node.args[0].value))
    return sorted(found)


FAILPOINTS = failpoints_in(REPOSITORY / "pipelines")
