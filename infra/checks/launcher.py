"""Files of Ray's cluster launcher: Ray's own schema (ships in its wheel), and our rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infra.checks.documents import against, read_document, shipped_schema
from infra.checks.rules import unpinned


def check_launcher(path: Path) -> Iterator[str]:
    where, document = f"launcher/{path.name}", read_document(path)
    problems = list(against(shipped_schema("ray", "autoscaler/ray-schema.json"), document, where))
    yield from problems
    if problems:
        return
    yield from unpinned(where, document["docker"]["image"])
    head = " ".join(document["head_start_ray_commands"])
    if "--dashboard-host=127.0.0.1" not in head:
        yield f"{where}: the dashboard must stay on loopback (it runs what it is sent)"
    options = document["docker"]["run_options"]
    if "--env=RAY_AUTH_MODE=token" not in options:
        yield f"{where}: RAY_AUTH_MODE=token is missing from docker.run_options"
    mounts = " ".join([*options, *document.get("file_mounts", {})])
    if "/.ray/auth_token" not in mounts:
        yield f"{where}: nothing brings the token to ~/.ray/auth_token in the container"
    types = document.get("available_node_types", {})
    if types and types[document["head_node_type"]].get("resources", {}).get("CPU") != 0:
        yield f"{where}: work on the head takes the cluster down with it; its CPU must be 0"
