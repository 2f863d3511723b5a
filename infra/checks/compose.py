"""compose.yaml: the Compose specification's schema (ships in check-jsonschema), and our rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.checks.documents import against, read_document, shipped_schema
from infra.checks.rules import is_secret, unpinned

FROM_ENVIRONMENT = re.compile(r"\$\{[A-Z0-9_]+:\?[^}]*\}")


def check_compose(path: Path) -> Iterator[str]:
    document = read_document(path)
    schema = shipped_schema("check_jsonschema", "builtin_schemas/vendor/compose-spec.json")
    problems = list(against(schema, document, path.name))
    yield from problems
    if problems:
        return
    for name, service in document["services"].items():
        yield from _check_service(f"{path.name}: {name}", service, document)


def _check_service(
    where: str, service: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[str]:
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{where}: port {port} is not published on loopback only"
    yield from unpinned(where, service.get("image", ""))
    for variable, value in service.get("environment", {}).items():
        if is_secret(variable) and not FROM_ENVIRONMENT.fullmatch(str(value)):
            yield f"{where}: {variable} must come from the environment and be required"
    if "${" in json.dumps(service.get("command", [])):
        yield f"{where}: a command line is visible to everyone; use the environment"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield f"{where}: security_opt lacks no-new-privileges:true"
    if service.get("cap_drop") != ["ALL"]:
        yield f"{where}: cap_drop must be [ALL]; add back what it needs with cap_add"
    for source in service.get("configs", []):
        if source["source"] not in document.get("configs", {}):
            yield f"{where}: no config {source['source']!r} at the end of the file"
