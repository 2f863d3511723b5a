"""What a training saw up to a checkpoint: clips, sources and licences, each counted once."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage import Store

LEDGER_FILE, HEADER_FILE = "lineage.parquet", "checkpoint.json"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class SeenClips:
    """`licenses`: clips of each licence. `complete` is False when the ledger of an earlier
    checkpoint is lost: then there was more."""

    clips: int
    sources: int
    licenses: dict[str, int] = field(default_factory=dict)
    complete: bool = True


def seen_until(
    checkpoints: Store, parent: str | None, ledger: pa.Table, index: pa.Table
) -> SeenClips:
    """`ledger`: what was seen since `parent`, the name of the checkpoint before (None: the first);
    `index`: the latents' table, which knows the licences."""
    ledgers, complete = _earlier_ledgers(checkpoints, parent)
    columns = ["clip_id", "source_id"]
    whole = pa.concat_tables([ledger.select(columns), *(t.select(columns) for t in ledgers)])
    clip_ids = pc.unique(whole["clip_id"])
    rows = pc.index_in(clip_ids, index["clip_id"].combine_chunks())
    licenses = pc.fill_null(index["license"].take(rows), NOT_STATED)
    counted = {entry["values"]: entry["counts"] for entry in pc.value_counts(licenses).to_pylist()}
    return SeenClips(
        clips=len(clip_ids),
        sources=pc.count_distinct(whole["source_id"]).as_py(),
        licenses=dict(sorted(counted.items())),
        complete=complete,
    )


def _earlier_ledgers(checkpoints: Store, name: str | None) -> tuple[list[pa.Table], bool]:
    ledgers: list[pa.Table] = []
    passed: set[str] = set()
    while name and name not in passed:
        passed.add(name)
        if not checkpoints.exists(f"{name}/{LEDGER_FILE}"):
            return ledgers, False
        ledgers.append(checkpoints.read_table(f"{name}/{LEDGER_FILE}"))
        parent = checkpoints.read_json(f"{name}/{HEADER_FILE}")["parent"]
        name = parent["checkpoint"] if parent else None
    return ledgers, True
