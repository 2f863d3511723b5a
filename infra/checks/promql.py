"""What a PromQL expression says, by a real parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser

# Grafana fills these in; any duration will do to read an expression.
VARIABLE = re.compile(r"\$__(rate_interval|interval|range)\b")


def expressions_of(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(panel's title, expression as Prometheus gets it) of every panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], VARIABLE.sub("5m", target["expr"])


def parsed(expression: str) -> Any:
    """Raises ValueError when it is not PromQL."""
    return promql_parser.parse(expression)


def metrics_of(expression: str) -> set[str]:
    """Names of the series that it reads. Raises ValueError when it is not PromQL."""
    return set(_metrics_in(parsed(expression)))


def _metrics_in(node: Any) -> Iterator[str]:
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name)
        return
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if isinstance(child, promql_parser.Expr):
            yield from _metrics_in(child)
    for child in getattr(node, "args", None) or ():
        yield from _metrics_in(child)


def read_dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
