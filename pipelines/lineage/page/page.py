"""The answer of a trace on one page that needs nothing but itself.

`write_page(catalog, question, report, path)` is what `jobs/trace.py --html FILE` calls. The page
is a view of the report: its graph, its numbers, and clips as they lie in the shards. Names,
captions, prompts and licences came from elsewhere: the template escapes them, and a content
policy forbids the page to load or run anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage.catalog import Catalog
from pipelines.lineage.page import future, future_tables, past
from pipelines.lineage.page.graph import Graph, graph_of
from pipelines.lineage.page.graph_layout import Drawing, draw
from pipelines.lineage.page.media import Media, media_of
from pipelines.lineage.page.tables import Columns, Table, row, table_of
from pipelines.storage import Store, absolute_uri

PAGE_FOLDER = Path(__file__).parent / "template"

#: Where on the page a node of the graph leads, by its kind.
PLACE_OF = {
    "source": "sources",
    "clip": "clips",
    "shard": "shards",
    "dataset": "datasets",
    "latents": "latents",
    "training": "checkpoints",
    "checkpoint": "checkpoints",
    "video": "videos",
}
STATES = {
    "kept": "kept",
    "dropped": "dropped",
    "tainted": "has seen it",
    "clean": "has not seen it",
    "not found": "not found here",
    "found": "found",
}


def write_page(
    catalog: Catalog, question: str, report: Mapping[str, Any], path: str | Path
) -> None:
    """Writes the page to `path`, whole or not at all, over what was there.

    `question` is a value of jobs/trace.py's QUESTIONS, `report` what `--json` prints for it.
    Raises RequestError when nothing can be written there.
    """
    page = render_page(question, report, graph_of(catalog, report), media_of(catalog, report))
    folder, _, name = absolute_uri(str(path)).rpartition("/")
    try:
        Store.open(folder or "/").write_bytes(name, page.encode("utf-8", "replace"))
    except OSError as error:
        why = error.strerror or str(error)
        raise RequestError(f"--html {path}: cannot write there ({why})") from error


def render_page(question: str, report: Mapping[str, Any], graph: Graph, media: Media) -> str:
    """The whole page as HTML text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((PAGE_FOLDER / "style.css").read_text())
    page = page_of(question, report, graph, media)
    return environment.get_template("page.html.j2").render(page=page, style=style) + "\n"


def page_of(question: str, report: Mapping[str, Any], graph: Graph, media: Media) -> dict[str, Any]:
    """The template's values."""
    is_future = question in ("source", "clip")
    words = future if is_future else past
    found = future_tables if is_future else past
    tables = [table for table in found.tables(report) if table.rows or table.lead]
    tables += _runs(report)
    drawing = draw(graph)
    decisions = future.decisions(report) if question == "clip" else []
    return {
        "question": question,
        "headline": words.headline(report),
        "facts": words.facts(report),
        "prompt": past.prompt(report),
        "drawing": drawing,
        "places": _places(drawing, tables),
        "legend": _legend(graph),
        "players": media.players,
        "left_out": media.left_out,
        "strips": words.strips(report),
        "anchors": _anchors(tables),
        "decisions": decisions,
        "has_limits": any(decision.limits_percent for decision in decisions),
        "tables": tables,
    }


def _runs(report: Mapping[str, Any]) -> list[Table]:
    """The tracked runs that made or used what the answer is about, where a store was asked."""
    columns: Columns = (("kind", "text"), ("name", "path"), ("status", "text"),
                        ("started", "text"), ("run", "mono"))  # fmt: skip
    rows = [
        row(run["kind"], run["name"], run["status"], _in_utc(run["started_ms"]), run["run_id"])
        for run in report.get("runs") or ()
    ]
    return [table_of("runs", "Runs in MLflow", columns, rows)] if rows else []


def _in_utc(since_epoch_ms: int) -> str:
    return f"{datetime.fromtimestamp(since_epoch_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _anchors(tables: Iterable[Table]) -> set[str]:
    """Ids that exist on the page."""
    found = {"top"}
    for table in tables:
        found.add(table.anchor)
        found |= {row.anchor for row in table.rows if row.anchor}
    return found


def _places(drawing: Drawing, tables: Iterable[Table]) -> list[str]:
    """Where each box of the graph leads, in the order of the boxes."""
    there = _anchors(tables)
    return [
        next(
            (
                place
                for place in (f"clip-{box.node.name}", PLACE_OF[box.node.kind])
                if place in there
            ),
            "top",
        )
        for box in drawing.boxes
    ]


def _legend(graph: Graph) -> list[tuple[str, str]]:
    """(state, in words) of the states on the graph."""
    there = {node.state for node in graph.nodes}
    return [(state.replace(" ", "-"), words) for state, words in STATES.items() if state in there]


__all__ = ["page_of", "render_page", "write_page"]
