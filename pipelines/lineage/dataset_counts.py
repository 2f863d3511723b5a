"""What a dataset holds, counted from its rows."""

from __future__ import annotations

from typing import Any

from pipelines.lineage.catalog import Catalog
from pipelines.lineage.manifest import CLIPS_TABLE, SOURCES_TABLE, Dataset
from pipelines.lineage.tombstones import TOMBSTONES_TABLE

_COUNTS = """
    SELECT verdict, reason, coalesce(license, 'not stated') AS license, tiers, count(*) AS clips
    FROM {scan} GROUP BY ALL
"""


def counts_of(catalog: Catalog, dataset: Dataset) -> dict[str, Any]:
    """Sources, clips, kept, dropped; clips per reason (of the dropped), per tier and per licence
    (of the kept); rows of tombstones. Counted, not copied from dataset.json."""
    tables = catalog.tables
    rows = tables.rows(_COUNTS.format(scan=tables.scan([(dataset.uri, CLIPS_TABLE)])))
    kept = [row for row in rows if row["verdict"] == "kept"]
    dropped = [row for row in rows if row["verdict"] == "dropped"]
    tiers = [{**row, "tier": tier} for row in kept for tier in row["tiers"] or ()]
    return {
        "sources": _size(catalog, dataset, SOURCES_TABLE),
        "clips": sum(row["clips"] for row in rows),
        "kept": sum(row["clips"] for row in kept),
        "dropped": sum(row["clips"] for row in dropped),
        "reasons": _added_up(dropped, "reason"),
        "tiers": _added_up(tiers, "tier"),
        "licenses": _added_up(kept, "license"),
        "taken_down": _size(catalog, dataset, TOMBSTONES_TABLE)
        if dataset.store.exists(TOMBSTONES_TABLE)
        else 0,
    }


def _added_up(rows: list[dict[str, Any]], column: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: str(row[column])):
        counts[row[column]] = counts.get(row[column], 0) + row["clips"]
    return counts


def _size(catalog: Catalog, dataset: Dataset, table: str) -> int:
    scan = catalog.tables.scan([(dataset.uri, table)])
    return int(catalog.tables.rows(f"SELECT count(*) AS n FROM {scan}")[0]["n"])
