"""What was taken down and must stay out: of a dataset's later versions, and of later curations.

A tombstone names a whole source, or a span of its frames. Spans, not only clip ids: at other
settings shot detection may draw the borders elsewhere, and a clip with another id would bring the
same frames back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.config import config_hash

TOMBSTONES_TABLE = "tombstones.parquet"
TOMBSTONE_SCHEMA = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        ("clip_id", pa.string()),  # null: the whole source
        ("start_frame", pa.int64()),  # null with clip_id; end exclusive
        ("end_frame", pa.int64()),
        pa.field("from_digest", pa.string(), nullable=False),  # the dataset it was taken out of
    ]
)


@dataclass(frozen=True)
class Tombstones:
    """Sources that must not come back, and spans (start_frame, end_frame) of others."""

    source_ids: frozenset[str] = frozenset()
    clip_ids: frozenset[str] = frozenset()
    spans: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.clip_ids)

    def covers_source(self, source_id: str) -> bool:
        return source_id in self.source_ids

    def covers(self, clip_id: str, source_id: str, start_frame: int, end_frame: int) -> bool:
        """Is the clip one that was taken down, or does it show a frame of one?"""
        if source_id in self.source_ids or clip_id in self.clip_ids:
            return True
        spans = self.spans.get(source_id, ())
        return any(start_frame < end and start < end_frame for start, end in spans)


def tombstones_of(rows: Iterable[Mapping[str, Any]]) -> Tombstones:
    """From rows of TOMBSTONE_SCHEMA, of one table or of several."""
    sources: set[str] = set()
    clips: set[str] = set()
    spans: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for row in rows:
        if row["clip_id"] is None:
            sources.add(row["source_id"])
            continue
        clips.add(row["clip_id"])
        if row.get("start_frame") is not None and row.get("end_frame") is not None:
            spans[row["source_id"]].add((row["start_frame"], row["end_frame"]))
    sorted_spans = {source: tuple(sorted(found)) for source, found in sorted(spans.items())}
    return Tombstones(frozenset(sources), frozenset(clips), sorted_spans)


def counts_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For `dataset.json`: {digest, sources, clips}. The digest says what is out, not which dataset
    it was taken from. `rows` are sorted by source, then clip."""
    names = ("source_id", "clip_id", "start_frame", "end_frame")
    clips = sum(row["clip_id"] is not None for row in rows)
    return {
        "digest": config_hash([[row[name] for name in names] for row in rows]),
        "sources": len(rows) - clips,
        "clips": clips,
    }
