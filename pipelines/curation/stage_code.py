"""What code a stage runs, as a hash: results of other code are not reused by mistake.

A version number beside each stage would do, if nobody ever forgot to raise it. So the code itself
is hashed: the stage's module and whatever of ours it imports, without comments and docstrings,
which decide nothing. The price is that an upgrade that touches these files does their work again.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("pipelines.", "model.")

#: What carries and stores the results, and decides none: modules, and rooms with all that is in.
CARRIERS = tuple(
    f"pipelines.{name}"
    for name in (
        *("config", "records", "storage", "job", "progress", "cluster", "sandbox"),
        *("failpoints", "redaction", "metrics"),
    )
)


@cache
def code_of(module: str) -> str:
    """32 hex digits over the code of `module` and of our modules that it imports, however far."""
    digest = hashlib.sha256()
    for name in sorted(closure_of(module)):
        digest.update(f"{name}\0{ast.dump(_tree(name))}\0".encode())
    return digest.hexdigest()[:32]


def closure_of(module: str) -> set[str]:
    """The names of those modules."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [n for n in _imported(_tree(name)) if not _carries(n)]
    return found


def _carries(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in CARRIERS)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Our modules that any import names, also a late one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith(OURS))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OURS):
            yield from (_home_of(str(node.module), alias.name) for alias in node.names)


def _home_of(module: str, name: str) -> str:
    """The module that `from module import name` is about: a package only passes names on."""
    if _path_of(f"{module}.{name}"):
        return f"{module}.{name}"
    path = _path_of(module)
    if path is not None and path.name == "__init__.py":
        for node in _tree(module).body:
            if isinstance(node, ast.ImportFrom) and any(name == a.name for a in node.names):
                return _home_of(str(node.module), name)
    return module


@cache
def _tree(module: str) -> ast.Module:
    path = _path_of(module)
    if path is None:
        raise ModuleNotFoundError(module)
    return without_words(path.read_text())


def without_words(source: str) -> ast.Module:
    """The program without what only a reader needs."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            _drop_docstring(node)
    return tree


def _drop_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        node.body = node.body[1:]


def _path_of(module: str) -> Path | None:
    stem = ROOT.joinpath(*module.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
