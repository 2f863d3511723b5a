"""Prometheus' and Grafana's files: strict schemas of what we use, and that they fit together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from infra.checks.documents import against, own_schema, read_document
from infra.checks.promql import expressions_of, parsed

DATA_SOURCE = "prometheus"


def check_prometheus(path: Path) -> Iterator[str]:
    document = read_document(path)
    problems = list(against(own_schema(path.parent, "prometheus"), document, path.name))
    yield from problems
    if problems:
        return
    services = read_document(path.parent / "compose.yaml").get("services", {})
    for config in document["scrape_configs"]:
        for service in config["dns_sd_configs"]:
            for name in set(service["names"]) - set(services):
                yield f"{path.name}: no service {name!r} in compose.yaml"


def check_grafana(folder: Path) -> Iterator[str]:
    infra = folder.parent
    sources = folder / "provisioning" / "datasources" / "prometheus.yaml"
    document = read_document(sources)
    yield from against(own_schema(infra, "grafana-datasources"), document, sources.name)
    if all(one.get("uid") != DATA_SOURCE for one in document.get("datasources", [])):
        yield f"{sources.name}: the dashboards read a data source of uid {DATA_SOURCE!r}"
    files = folder / "provisioning" / "dashboards" / "files.yaml"
    yield from against(own_schema(infra, "grafana-dashboards"), read_document(files), files.name)


def check_dashboard(path: Path) -> Iterator[str]:
    document = read_document(path)
    schema = own_schema(path.parents[2], "dashboard")
    problems = list(against(schema, document, path.name))
    yield from problems
    if problems:
        return
    panels = document["panels"]
    if len({panel["id"] for panel in panels}) < len(panels):
        yield f"{path.name}: two panels have the same id"
    for one, other in combinations(panels, 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"{path.name}: {one['title']!r} lies on {other['title']!r}"
    for panel in panels:
        if panel.get("datasource", {}).get("uid", DATA_SOURCE) != DATA_SOURCE:
            yield f"{path.name}: {panel['title']}: no such data source"
    for title, expression in expressions_of(document):
        try:
            parsed(expression)
        except ValueError as error:
            yield f"{path.name}: {title}: {' '.join(str(error).split())}"


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    down = one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
    return bool(across and down)
