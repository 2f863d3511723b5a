"""The rows that the report is a view of: counted, summed and picked from where they lie.

There may be very many, so none is a Python object but those that the page shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.lineage.manifest import CLIPS_TABLE, SOURCES_TABLE
from pipelines.lineage.tables import Tables
from pipelines.records import CLIP_SCHEMA, Clip, Source, from_row, to_table

#: Columns of a clip that no page shows: half a kilobyte a row and more.
LEFT_OUT = ("embedding", "phash")
SHOWN_COLUMNS = ", ".join(n for n in CLIP_SCHEMA.names if n not in LEFT_OUT)
LENGTH = "end_s - start_s"
#: As shards.shuffle_key orders clips with the seed 0: at random, but always the same.
AT_RANDOM = "sha256('0:' || clip_id)"
#: As report_facts.name_of names a source.
NAME = "coalesce(nullif(regexp_extract(uris[1], '[^/]*$'), ''), uris[1], left(source_id, 8))"


@dataclass(frozen=True)
class Share:
    """Clips of one kind with one verdict."""

    verdict: str
    stage: str
    reason: str
    kind: str
    clips: int
    seconds: float


@dataclass(frozen=True)
class Files:
    """Files of one licence with one outcome."""

    status: str
    reason: str | None
    license: str | None
    files: int
    seconds: float


class ReportRows:
    """Sources and clips of one dataset. For one thread at a time."""

    def __init__(self, tables: Tables, sources: str, clips: str) -> None:
        self._tables, self._sources, self._clips = tables, sources, clips

    @classmethod
    def of_dataset(cls, uri: str) -> ReportRows:
        """From the tables that lie there."""
        tables = Tables()
        return cls(tables, tables.scan([(uri, SOURCES_TABLE)]), tables.scan([(uri, CLIPS_TABLE)]))

    @classmethod
    def of(cls, sources: Sequence[Source], clips: Sequence[Clip]) -> ReportRows:
        """From rows at hand."""
        tables = Tables()
        of_clips = to_table(Clip, clips).drop_columns(list(LEFT_OUT))
        held = (tables.hold("sources", to_table(Source, sources)), tables.hold("clips", of_clips))
        return cls(tables, *held)

    @cached_property
    def shares(self) -> list[Share]:
        rows = self._tables.rows(
            f"""SELECT verdict, coalesce(reason_stage, '') AS stage,
            coalesce(reason, 'unknown') AS reason, kind, count(*) AS clips,
            sum({LENGTH}) AS seconds FROM {self._clips} GROUP BY ALL ORDER BY ALL"""
        )
        return [Share(**row) for row in rows]

    @cached_property
    def files(self) -> list[Files]:
        rows = self._tables.rows(
            f"""SELECT status, reason, license, count(*) AS files,
            coalesce(sum(duration_s), 0) AS seconds FROM {self._sources}
            GROUP BY ALL ORDER BY ALL"""
        )
        return [Files(**row) for row in rows]

    def tiers(self) -> Counter[str]:
        """Kept clips by tier."""
        rows = self._tables.rows(
            f"""SELECT tier, count(*) AS clips FROM
            (SELECT unnest(tiers) AS tier FROM {self._clips} WHERE verdict = 'kept')
            GROUP BY tier"""
        )
        return Counter({row["tier"]: row["clips"] for row in rows})

    def kept_by_license(self) -> list[dict[str, Any]]:
        """Rows of license, clips, seconds."""
        return self._tables.rows(
            f"""SELECT license, count(*) AS clips, sum({LENGTH}) AS seconds FROM {self._clips}
            WHERE verdict = 'kept' GROUP BY license ORDER BY ALL"""
        )

    def values(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """The known values of a column of the kept and of the dropped clips; `duration_s` is that
        of videos alone."""
        value = f"({LENGTH})" if column == "duration_s" else column
        only = "kind = 'video'" if column == "duration_s" else f"{column} IS NOT NULL"
        found = self._tables.columns(
            f"""SELECT verdict = 'kept' AS kept, {value}::DOUBLE AS value FROM {self._clips}
            WHERE {only}"""
        )
        kept = np.asarray(found["kept"], bool)
        return np.asarray(found["value"])[kept], np.asarray(found["value"])[~kept]

    def some_kept(self, count: int) -> list[Clip]:
        """A random but repeatable choice, in the films' order."""
        return self._some("verdict = 'kept'", count)

    def some_dropped(self, reason: str, count: int) -> list[Clip]:
        return self._some("verdict = 'dropped' AND coalesce(reason, 'unknown') = ?", count, reason)

    def best_videos(self, count: int) -> list[Clip]:
        """Kept ones, those of the most tiers first, else at random."""
        return self._chosen(
            "verdict = 'kept' AND kind = 'video'", f"-len(tiers), {AT_RANDOM}", count
        )

    def first_films(self, count: int) -> list[tuple[Source, list[Clip]]]:
        """The first films by name that have shots, with their shots in order."""
        sources = [
            from_row(Source, row)
            for row in self._tables.rows(
                f"""SELECT * FROM {self._sources} WHERE source_id IN ({self._films})
                ORDER BY {NAME}, source_id LIMIT {count}"""
            )
        ]
        shots: dict[str, list[Clip]] = {source.source_id: [] for source in sources}
        of_these = "kind = 'video' AND source_id IN (SELECT unnest(?::VARCHAR[]))"
        for clip in self._chosen(of_these, "source_id, start_frame", None, list(shots)):
            shots[clip.source_id].append(clip)
        return [(source, shots[source.source_id]) for source in sources]

    def count_films(self) -> int:
        """Films that have shots."""
        query = f"SELECT count(*) AS films FROM {self._sources} WHERE source_id IN ({self._films})"
        return int(self._tables.rows(query)[0]["films"])

    def names(self, source_ids: Iterable[str]) -> dict[str, str]:
        """File names, without folders, by source id."""
        rows = self._tables.rows(
            f"""SELECT source_id, {NAME} AS name FROM {self._sources}
            WHERE source_id IN (SELECT unnest(?::VARCHAR[]))""",
            [sorted(set(source_ids))],
        )
        return {row["source_id"]: row["name"] for row in rows}

    def failed_files(self, named: int) -> list[dict[str, Any]]:
        """Rows of reason, files (how many), names (the first few); most frequent first."""
        return self._tables.rows(
            f"""SELECT coalesce(reason, 'unknown') AS reason, count(*) AS files,
            min(coalesce(nullif(regexp_extract(uri, '[^/]*$'), ''), uri), {named}) AS names
            FROM (SELECT reason, unnest(uris) AS uri FROM {self._sources} WHERE status != 'ok')
            GROUP BY 1 ORDER BY files DESC, 1"""
        )

    @property
    def _films(self) -> str:
        return f"""SELECT source_id FROM {self._clips} WHERE kind = 'video'
            GROUP BY source_id HAVING sum({LENGTH}) > 0"""

    def _some(self, condition: str, count: int, *parameters: Any) -> list[Clip]:
        chosen = self._chosen(condition, AT_RANDOM, count, *parameters)
        return sorted(chosen, key=lambda c: (c.source_id, c.start_frame))

    def _chosen(
        self, condition: str, order: str, count: int | None, *parameters: Any
    ) -> list[Clip]:
        """Whole rows, found by their ids: sorting moves those alone."""
        limit = "" if count is None else f"LIMIT {count}"
        ids = self._tables.rows(
            f"SELECT clip_id FROM {self._clips} WHERE {condition} ORDER BY {order} {limit}",
            parameters,
        )
        wanted = [row["clip_id"] for row in ids]
        rows = self._tables.rows(
            f"""SELECT {SHOWN_COLUMNS} FROM {self._clips}
            WHERE clip_id IN (SELECT unnest(?::VARCHAR[]))""",
            [wanted],
        )
        by_id = {row["clip_id"]: from_row(Clip, row) for row in rows}
        return [by_id[clip_id] for clip_id in wanted]
