"""What one training saw: its ledgers added up per source, with the spans of frames and licences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.lineage.catalog import LINEAGE_TABLE, Catalog, Entry
from pipelines.lineage.manifest import CLIPS_TABLE, SOURCES_TABLE
from pipelines.lineage.tables import Tables

# A clip may be in the ledger of several checkpoints: first per clip, then per source.
_PER_SOURCE = """
    CREATE OR REPLACE TEMP TABLE per_source AS
    SELECT source_id, count(*) AS clips, sum(times)::BIGINT AS times,
           min(first_step) AS first_step
    FROM (SELECT source_id, clip_id, sum(times) AS times, min(first_step) AS first_step
          FROM {ledgers} GROUP BY source_id, clip_id)
    GROUP BY source_id
"""
_TOTALS = """
    SELECT coalesce(sum(times), 0)::BIGINT AS samples_seen,
           coalesce(sum(clips), 0)::BIGINT AS clips_seen, count(*) AS sources_seen
    FROM per_source
"""
_SHOWN = """
    CREATE OR REPLACE TEMP TABLE shown AS
    SELECT * FROM per_source ORDER BY times DESC, source_id {limit}
"""
_SPANS = """
    SELECT source_id, list([start_s, end_s] ORDER BY start_s)
           FILTER (start_s IS NOT NULL) AS spans_s
    FROM {clips}
    WHERE source_id IN (SELECT source_id FROM shown)
      AND clip_id IN (SELECT clip_id FROM {ledgers}
                      WHERE source_id IN (SELECT source_id FROM shown))
    GROUP BY source_id
"""
_ROWS = """
    SELECT shown.*, sources.uris, sources.license, sources.consent, sources.duration_s
    FROM shown LEFT JOIN {sources} AS sources USING (source_id)
    ORDER BY times DESC, source_id
"""
_LICENSES = """
    SELECT coalesce(sources.license, 'not stated') AS license, count(*) AS sources
    FROM per_source LEFT JOIN {sources} AS sources USING (source_id) GROUP BY ALL ORDER BY ALL
"""
_NO_SOURCES = (
    "(SELECT NULL::VARCHAR AS source_id, NULL::VARCHAR[] AS uris, NULL::VARCHAR AS license, "
    "NULL::VARCHAR AS consent, NULL::DOUBLE AS duration_s WHERE false)"
)


def what_was_seen(
    catalog: Catalog, history: Sequence[Entry], dataset: Entry | None, shown: int | None
) -> dict[str, Any]:
    """{samples_seen, clips_seen, sources_seen, sources, licenses (sources of each)}.

    `sources` has a row per source, the most seen first: files, licence, consent, clips, times,
    first step, and the spans that were seen, in seconds; without a dataset, ids and counts alone.
    """
    tables = catalog.tables
    ledgers = tables.scan([(entry.uri, LINEAGE_TABLE) for entry in history])
    tables.run(_PER_SOURCE.format(ledgers=ledgers))
    tables.run(_SHOWN.format(limit="" if shown is None else f"LIMIT {int(shown)}"))
    sources = tables.scan([(dataset.uri, SOURCES_TABLE)]) if dataset else _NO_SOURCES
    rows = tables.rows(_ROWS.format(sources=sources))
    spans = _spans(tables, ledgers, dataset)
    licenses = tables.rows(_LICENSES.format(sources=sources))
    return {
        **tables.rows(_TOTALS)[0],
        "sources": [{**row, "spans_s": spans.get(row["source_id"])} for row in rows],
        "licenses": {row["license"]: row["sources"] for row in licenses},
    }


def _spans(tables: Tables, ledgers: str, dataset: Entry | None) -> dict[str, list[list[float]]]:
    if dataset is None:
        return {}
    clips = tables.scan([(dataset.uri, CLIPS_TABLE)])
    rows = tables.rows(_SPANS.format(clips=clips, ledgers=ledgers))
    return {row["source_id"]: row["spans_s"] for row in rows}
