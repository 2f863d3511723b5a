"""What processes left behind that are gone: found on this machine, and sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.lineage.spool.attachments import Attachments
from pipelines.lineage.spool.files import (
    SpoolFolder,
    folders_below,
    lines_after,
    marked_in,
    refused_in,
    store_of,
)
from pipelines.lineage.spool.lock import FileLock
from pipelines.lineage.spool.spool import Sender, Sent, Sink, Verdict

DOUBT_PAUSE_S = 1.0


def nothing() -> None:
    """For who does not ask how far it is."""


def send_folder(folder: SpoolFolder, sink: Sink, on_progress: Callable[[], None] = nothing) -> Sent:
    """Sends what waits in a folder whose process is gone, and removes it when all went; else
    releases it. Runs that the process never ended were killed with it. Raises OSError."""
    ended_ms = folder.last_written_ms()
    for run in folder.open_runs():
        end = {"op": "end", "run": run, "status": "KILLED", "at_ms": ended_ms, "orphan": True}
        folder.append(end)
    folder.set_open_runs([])
    sender = Sender(folder, sink, on_progress)
    sent = sender.send_records()
    while sent.verdict is Verdict.DOUBTFUL:
        time.sleep(DOUBT_PAUSE_S)
        again = sender.send_records()
        sent = Sent(
            sent.records + again.records,
            refused=sent.refused + again.refused,
            error=again.error,
            verdict=again.verdict,
        )
    if sent.verdict is not Verdict.LATER:
        files = sender.send_files(Attachments(folder.path))
        sent.files, sent.refused = files.files, sent.refused + files.refused
        sent.error, sent.verdict = sent.error or files.error, sent.verdict or files.verdict
    if sent.error is None:
        folder.remove()
    else:
        folder.release()
    return sent


@dataclass(frozen=True)
class Waiting:
    """What waits on this machine for one store and project."""

    place: Path
    uri: str
    project: str
    folders: tuple[Path, ...]

    def counts(self) -> dict[str, int]:
        """{"records", "files", "refused", "in_use": folders of living processes, whose records
        are not counted}."""
        left = [folder for folder in self.folders if not is_in_use(folder)]
        return {
            "records": sum(records_in(folder) for folder in left),
            "files": sum(len(Attachments(folder).waiting()) for folder in left),
            "refused": len(refused_in(self.place)),
            "in_use": len(self.folders) - len(left),
        }


def waiting_stores(root: Path) -> list[Waiting]:
    """Every store that something waits for, or has refused something."""
    found = []
    for place in sorted(root.iterdir()) if root.is_dir() else []:
        if named := store_of(place):
            found.append(Waiting(place, *named, tuple(folders_below(place))))
    return found


def records_in(folder: Path) -> int:
    try:
        return sum(len(lines) for lines in lines_after(folder, marked_in(folder)))
    except FileNotFoundError:  # delivered meanwhile
        return 0


def is_in_use(folder: Path) -> bool:
    lock = FileLock.take(folder / "lock")
    if lock is None:
        return folder.exists()
    lock.release()
    return False
