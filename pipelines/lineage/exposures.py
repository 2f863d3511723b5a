"""How often checkpoints saw clips: sums over the ledgers of their whole training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.lineage.catalog import LINEAGE_TABLE, Catalog, Entry
from pipelines.lineage.tables import Choice

# {clip_id: (first_step, times)}
Seen = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Exposures:
    """`seen`, by checkpoint URI: what it and the checkpoints before it saw of the chosen clips.
    `unreadable`: why a checkpoint's own ledger could not be read; those after it saw at least what
    is in `seen`."""

    seen: dict[str, Seen]
    unreadable: dict[str, str]


def exposures_of(catalog: Catalog, checkpoints: Sequence[Entry], choice: Choice) -> Exposures:
    """Over the whole training of each checkpoint."""
    own, unreadable = _own_ledgers(catalog, checkpoints, choice)
    whole: dict[str, Seen] = {}
    for checkpoint in checkpoints:
        pending: list[Entry] = []
        entry: Entry | None = checkpoint
        while entry and entry.uri not in whole and entry not in pending:
            pending.append(entry)
            entry = catalog.parent_of(entry)
        seen = whole.get(entry.uri, {}) if entry else {}
        for earlier in reversed(pending):
            seen = whole[earlier.uri] = joined(seen, own.get(earlier.uri, {}))
    return Exposures(whole, unreadable)


def joined(before: Seen, now: Seen) -> Seen:
    """Both together; `before` itself where nothing is new, so that a long training is cheap."""
    if not now:
        return before
    seen = dict(before)
    for clip_id, (first_step, times) in now.items():
        earlier = seen.get(clip_id, (first_step, 0))
        seen[clip_id] = (min(first_step, earlier[0]), times + earlier[1])
    return seen


def _own_ledgers(
    catalog: Catalog, checkpoints: Sequence[Entry], choice: Choice
) -> tuple[dict[str, Seen], dict[str, str]]:
    """Each checkpoint's own ledger: what was seen since its parent; and why some have none."""
    tables = catalog.tables
    found, unreadable = tables.readable_rows_by_place(
        [entry.uri for entry in checkpoints],
        LINEAGE_TABLE,
        "clip_id, first_step, times",
        tables.where(choice),
    )
    ledgers = {
        uri: {row["clip_id"]: (row["first_step"], row["times"]) for row in rows}
        for uri, rows in found.items()
    }
    return ledgers, unreadable
