"""Sending what waits in the spool of this machine, store by store, and saying what went."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage.spool.files import Record, SpoolFolder, folders_below, refused_in
from pipelines.lineage.spool.replay import Waiting, send_folder, waiting_stores
from pipelines.lineage.spool.spool import name_of, one_line


@dataclass
class Told:
    """What was found for a store, and what became of it. `waiting`: records and files left,
    `in_use`: folders of jobs that live and deliver themselves."""

    uri: str
    project: str
    place: str
    waiting: int = 0
    in_use: int = 0
    sent: int = 0
    files: int = 0
    reason: str = ""
    refused: list[Record] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        where = one_line(f"{self.uri} ({self.project})")
        yield (
            f"{where}: {self.sent} records and {self.files} files sent, {self.waiting} waiting, "
            f"{len(self.refused)} refused"
        )
        if self.reason:
            yield f"  not now: {self.reason}"
        if self.in_use:
            yield f"  {self.in_use} jobs that still run deliver theirs themselves"
        for entry in self.refused:
            what = name_of(entry.get("record") or {})
            yield f"  refused: {what}: {one_line(entry.get('reason', ''))} ({self.place})"

    def to_plain(self) -> dict[str, Any]:
        plain = {**vars(self), "refused": []}
        plain["refused"] = [
            {"what": name_of(entry.get("record") or {}), "reason": entry.get("reason", "")}
            for entry in self.refused
        ]
        return plain


def chosen_stores(root: Path, uri: str = "", project: str = "") -> list[Waiting]:
    """Those for this URI and project; empty: every one. With nothing in them left out."""
    return [
        store
        for store in waiting_stores(root)
        if uri in ("", store.uri)
        and project in ("", store.project)
        and any(store.counts().values())
    ]


def list_store(store: Waiting) -> Told:
    """As it is; nothing is sent."""
    counts = store.counts()
    return Told(
        store.uri,
        store.project,
        str(store.place),
        waiting=counts["records"] + counts["files"],
        in_use=counts["in_use"],
        refused=refused_in(store.place),
    )


def replay_store(store: Waiting) -> Told:
    """Sends what no living process sends itself, oldest first, while the store takes it."""
    from pipelines.lineage.tracking import recorder

    sent = files = 0
    reason = ""
    try:
        sink = recorder(store.uri, store.project)
    except RequestError as error:
        reason = one_line(error)
    else:
        for path in folders_below(store.place):
            with contextlib.suppress(FileNotFoundError):  # somebody else delivered it
                folder = SpoolFolder.take(path)
                if folder is None:
                    continue
                did = send_folder(folder, sink)
                sent, files = sent + did.records, files + did.files
                reason = reason or (one_line(did.error) if did.error else "")
    folders = tuple(folders_below(store.place))
    left = list_store(dataclasses.replace(store, folders=folders))
    left.sent, left.files, left.reason = sent, files, reason
    return left


def replay_everything_for(root: Path, uri: str) -> int:
    """Records and files that went to the store at `uri`."""
    told = [replay_store(store) for store in chosen_stores(root, uri)]
    return sum(one.sent + one.files for one in told)
