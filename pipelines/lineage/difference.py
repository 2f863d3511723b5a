"""What changed between two versions of a dataset, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.lineage.manifest import CLIPS_TABLE, Dataset
from pipelines.lineage.tables import Tables


@dataclass(frozen=True)
class Difference:
    """What taking `after` instead of `before` means for a training run: kept clips only.

    Rows are dicts with `clip_id`, `source_id` and `why`: for an added clip what dropped it
    before, for a removed one what dropped it since, for a changed one the columns that differ.
    """

    before: str
    after: str
    added: list[dict[str, str]]
    removed: list[dict[str, str]]
    changed: list[dict[str, str]]


def diff(a: Dataset, b: Dataset) -> Difference:
    """From dataset `a` to dataset `b`, ordered by clip_id. One pass over both tables."""
    tables = Tables()
    scans = {name: tables.scan([(d.uri, CLIPS_TABLE)]) for name, d in (("a", a), ("b", b))}
    tables.run(_TOUCHED.format(**scans))
    rows = tables.rows(_CHANGES.format(**scans))
    return Difference(
        before=a.digest,
        after=b.digest,
        added=_of("added", rows),
        removed=_of("removed", rows),
        changed=_of("changed", rows),
    )


def _of(kind: str, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    names = ("clip_id", "source_id", "why")
    return [{name: row[name] for name in names} for row in rows if row["change"] == kind]


# Which clips to look at, from 64 bits a row: the texts of a million clips are not joined. Two rows
# that differ and hash alike (1 in 10^19) would be overlooked.
_HASHED = """
    SELECT clip_id, hash(content_sha256, caption, short_caption, tiers) AS row_hash
    FROM {scan} WHERE verdict = 'kept'
"""
_TOUCHED = f"""
    CREATE OR REPLACE TEMP TABLE touched AS
    SELECT clip_id
    FROM ({_HASHED.format(scan="{a}")} UNION ALL {_HASHED.format(scan="{b}")})
    GROUP BY clip_id HAVING count(*) <> 2 OR min(row_hash) <> max(row_hash)
"""

_COLUMNS = """
    SELECT clip_id, source_id, verdict, reason_stage, reason, content_sha256, caption,
           short_caption, tiers
    FROM {scan} WHERE clip_id IN (SELECT clip_id FROM touched)
"""
_CHANGES = f"""
    WITH old AS ({_COLUMNS.format(scan="{a}")}), new AS ({_COLUMNS.format(scan="{b}")}),
    pairs AS (
        SELECT coalesce(old.clip_id, new.clip_id) AS clip_id,
               coalesce(old.source_id, new.source_id) AS source_id,
               coalesce(old.verdict = 'kept', false) AS was_kept,
               coalesce(new.verdict = 'kept', false) AS is_kept,
               CASE WHEN old.clip_id IS NULL OR new.clip_id IS NULL THEN 'not in the other version'
                    WHEN was_kept THEN
                        coalesce(new.reason_stage, '?') || ': ' || coalesce(new.reason, '?')
                    ELSE coalesce(old.reason_stage, '?') || ': ' || coalesce(old.reason, '?')
               END AS reason,
               concat_ws(', ',
                   CASE WHEN old.content_sha256 IS DISTINCT FROM new.content_sha256
                        THEN 'content' END,
                   CASE WHEN old.caption IS DISTINCT FROM new.caption THEN 'caption' END,
                   CASE WHEN old.short_caption IS DISTINCT FROM new.short_caption
                        THEN 'short_caption' END,
                   CASE WHEN old.tiers IS DISTINCT FROM new.tiers THEN 'tiers' END) AS columns
        FROM old FULL JOIN new USING (clip_id)
    )
    SELECT clip_id, source_id,
           CASE WHEN was_kept AND is_kept THEN 'changed' WHEN is_kept THEN 'added'
                ELSE 'removed' END AS change,
           CASE WHEN was_kept AND is_kept THEN columns ELSE reason END AS why
    FROM pairs ORDER BY clip_id
"""
