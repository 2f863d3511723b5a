"""Which clips were trained on, kept while it happens: the last link of clip-level lineage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.training.feed.feed import Sample

LINEAGE_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("first_step", pa.int64(), nullable=False),
        pa.field("times", pa.int32(), nullable=False),
    ]
)

LEDGER_GROUP_ROWS = 16_384


class Ledger:
    """Clips seen since the parent checkpoint. Steps count from 1, as checkpoints do: what step 5
    saw is in every checkpoint from step-00000005 on."""

    def __init__(self) -> None:
        self._source_of: dict[str, str] = {}
        self._first_step: dict[str, int] = {}
        self._times: dict[str, int] = {}

    def add(self, step: int, samples: Iterable[Sample]) -> None:
        for sample in samples:
            self._source_of[sample.clip_id] = sample.source_id
            self._first_step.setdefault(sample.clip_id, step)
            self._times[sample.clip_id] = self._times.get(sample.clip_id, 0) + 1

    def write(self, path: Path) -> None:
        """lineage.parquet, one row per clip, sorted by source_id, then clip_id: what one source
        taught lies together, and is found in a few groups of rows."""
        rows = [
            {
                "clip_id": clip_id,
                "source_id": self._source_of[clip_id],
                "first_step": self._first_step[clip_id],
                "times": self._times[clip_id],
            }
            for clip_id in sorted(self._times, key=lambda clip: (self._source_of[clip], clip))
        ]
        table = pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA)
        pq.write_table(table, path, compression="zstd", row_group_size=LEDGER_GROUP_ROWS)
