"""Reading deployment files, and holding them against a schema."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, Draft202012Validator


class Unreadable(Exception):
    """A file is not there, or not in its language; the message is a line."""


def read_documents(path: Path) -> list[Any]:
    """The documents of a YAML or JSON file. Raises Unreadable."""
    try:
        found = list(yaml.load_all(path.read_text(), yaml.CSafeLoader))
    except OSError as error:
        raise Unreadable(f"{path.name}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path.name}: {' '.join(str(error).split())}") from error
    if not found or not all(isinstance(one, dict) for one in found):
        raise Unreadable(f"{path.name}: a document that is no mapping")
    return found


def read_document(path: Path) -> dict[str, Any]:
    """The only document of a file. Raises Unreadable."""
    found = read_documents(path)
    if len(found) != 1:
        raise Unreadable(f"{path.name}: {len(found)} documents, expected one")
    return found[0]


def against(schema: dict[str, Any], document: Any, where: str) -> Iterator[str]:
    """A line per place where a document breaks its schema."""
    newest = "2020-12" in schema.get("$schema", "")
    validator = (Draft202012Validator if newest else Draft7Validator)(schema)
    for error in sorted(validator.iter_errors(document), key=lambda e: list(map(str, e.path))):
        place = "/".join(map(str, error.absolute_path)) or "(top)"
        yield f"{where}: {place}: {error.message:.200}"


def own_schema(infra: Path, name: str) -> dict[str, Any]:
    return json.loads((infra / "schemas" / f"{name}.schema.json").read_text())


def shipped_schema(package: str, relative: str) -> dict[str, Any]:
    """A schema that a package carries; the package itself is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} is not installed: pip install -e '.[dev]'")
    return json.loads((Path(spec.origin).parent / relative).read_text())
