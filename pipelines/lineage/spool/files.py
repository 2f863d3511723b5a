"""Records that wait on disk for a tracking server: one folder a process, one JSON object a line.

    SPOOL/<store>/<started>-<pid>-<random>/
        store.json       which store and project the records are for
        lock             held as long as the writer, or who delivers for it, lives
        00000001.jsonl   records in order, appended; a next file after SEGMENT_BYTES
        mark             "segment offset": everything before it was delivered
        open.json        runs that were started and not ended
        files/00000001/  a file for a run: record.json and copy/NAME
    SPOOL/<store>/refused.jsonl, refused-files/   what the store refused for ever, and why

A line is whole when it ends: what a killed process left of its last one was never recorded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.failpoints import failpoint
from pipelines.lineage.spool.lock import FileLock

Record = dict[str, Any]
Position = tuple[int, int]

SEGMENT_BYTES = 16 << 20
READ_BYTES = 1 << 20
START: Position = (1, 0)
GONE_PREFIX = ".gone-"
DAMAGED = "damaged"


@dataclass(frozen=True)
class Line:
    """A record, and where the next one begins. A line that is no JSON object is {"op": DAMAGED}."""

    record: Record
    end: Position


class SpoolFolder:
    """One process's records for one store. Whoever holds it holds its lock.

    One thread appends, one reads and marks. Methods raise OSError.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._segment, self._written_bytes = 0, SEGMENT_BYTES
        self._file: int | None = None

    @classmethod
    def create(cls, root: Path, uri: str, project: str) -> SpoolFolder:
        now_ns = time.time_ns()
        store = store_folder(root, uri, project)
        lock = None
        while lock is None:  # another process may take a folder that is this new for a dead one's
            path = store / f"{now_ns:020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            path.mkdir(parents=True, mode=0o700)
            lock = FileLock.take(path / "lock")
        made = {"uri": uri, "project": project, "pid": os.getpid(), "started_ms": now_ns // 10**6}
        for place in (store, path):
            if not (place / "store.json").exists():
                _write_whole(place / "store.json", json.dumps(made))
        _remove_unused(store)
        return cls(path, lock)

    @classmethod
    def take(cls, path: Path) -> SpoolFolder | None:
        """A folder whose process is gone; None while it lives, or when another delivers it."""
        lock = FileLock.take(path / "lock") if path.is_dir() else None
        return cls(path, lock) if lock else None

    def release(self) -> None:
        self._close()
        self._lock.release()

    def remove(self) -> None:
        gone = self.path.with_name(GONE_PREFIX + self.path.name)
        failpoint("spool.before_remove")
        self.path.rename(gone)
        failpoint("spool.removing")
        shutil.rmtree(gone, ignore_errors=True)
        self.release()

    # --- writing -------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """All of it or nothing, but for a crash in between."""
        line = encode(record)
        if self._file is None or self._written_bytes + len(line) > SEGMENT_BYTES:
            self._next_segment()
        assert self._file is not None
        done = 0
        failpoint("spool.before_append")
        try:
            while done < len(line):
                done += os.write(self._file, line[done:])
            failpoint("spool.after_append")
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._written_bytes)
            raise
        self._written_bytes += len(line)

    def _next_segment(self) -> None:
        self._close()
        number = max([*self.segments(), self.marked()[0] - 1, 0]) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path / f"{number:08d}.jsonl", flags, 0o600)
        self._segment, self._written_bytes = number, 0

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def sync(self) -> None:
        """Past a power cut. Takes milliseconds: not for the job's thread."""
        for number in self.segments()[-1:]:
            with open(self.path / f"{number:08d}.jsonl", "rb") as file:
                failpoint("spool.before_fsync")
                os.fsync(file.fileno())

    def set_open_runs(self, runs: list[str]) -> None:
        _write_whole(self.path / "open.json", json.dumps(runs))

    def open_runs(self) -> list[str]:
        try:
            return list(json.loads((self.path / "open.json").read_bytes()))
        except (OSError, ValueError):
            return []

    # --- reading -------------------------------------------------------------------------

    def segments(self) -> list[int]:
        return segments_of(self.path)

    def marked(self) -> Position:
        return marked_in(self.path)

    def mark(self, position: Position) -> None:
        """Everything before `position` was delivered."""
        _write_whole(self.path / "mark", f"{position[0]} {position[1]}\n")
        failpoint("spool.marked")
        for number in self.segments():
            if number < position[0]:
                (self.path / f"{number:08d}.jsonl").unlink(missing_ok=True)

    def read(self) -> list[Line]:
        """The next lines after the mark; [] when there is none."""
        return next(lines_after(self.path, self.marked()), [])

    def last_written_ms(self) -> int:
        numbers = self.segments()
        newest = self.path / (f"{numbers[-1]:08d}.jsonl" if numbers else "store.json")
        return int(newest.stat().st_mtime * 1000)

    def refuse(self, record: Record, reason: str) -> None:
        """Sets a record aside, with the reason, for people."""
        line = encode({"refused_ms": int(time.time() * 1000), "reason": reason, "record": record})
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self.path.parent / "refused.jsonl", flags, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)


# --- pure reading, by whoever looks ------------------------------------------------------------


def store_folder(root: Path, uri: str, project: str) -> Path:
    """The folder of a store's and project's spools."""
    return root / hashlib.sha256(f"{uri}\0{project}".encode()).hexdigest()[:16]


def folders_below(store: Path) -> list[Path]:
    """Spools of one store, oldest first."""
    if not store.is_dir():
        return []
    return sorted(p for p in store.iterdir() if (p / "store.json").is_file() and p.name[0] != ".")


def store_of(folder: Path) -> tuple[str, str] | None:
    """(tracking URI, project) that the records are for."""
    try:
        made = json.loads((folder / "store.json").read_bytes())
        return str(made["uri"]), str(made["project"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def segments_of(folder: Path) -> list[int]:
    try:
        return sorted(int(p.stem) for p in folder.glob("*.jsonl") if p.stem.isdigit())
    except OSError:
        return []


def marked_in(folder: Path) -> Position:
    try:
        segment, offset = (folder / "mark").read_text().split()
        return int(segment), int(offset)
    except (OSError, ValueError):
        return START


def lines_after(folder: Path, position: Position) -> Iterator[list[Line]]:
    """Whole lines from `position` on, some at a time."""
    for number in segments_of(folder):
        if number < position[0]:
            continue
        offset = position[1] if number == position[0] else 0
        with open(folder / f"{number:08d}.jsonl", "rb") as file:
            file.seek(offset)
            while lines := file.readlines(READ_BYTES):
                found = []
                for line in lines:
                    if line.endswith(b"\n"):
                        offset += len(line)
                        found.append(Line(decode(line), (number, offset)))
                if found:
                    yield found
                if len(found) < len(lines):
                    break  # the end of the last line is still being written


def undelivered(root: Path, uri: str, project: str) -> Iterator[Record]:
    """Every record for the store that was not delivered, those of living processes too."""
    for folder in folders_below(store_folder(root, uri, project)):
        # Delivered and removed while we look: then the store has it.
        with contextlib.suppress(FileNotFoundError):
            for lines in lines_after(folder, marked_in(folder)):
                yield from (line.record for line in lines)


def refused_in(store: Path) -> list[Record]:
    """What was set aside: {"reason", "refused_ms", "record"}; each record once."""
    try:
        lines = (store / "refused.jsonl").read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    found = [decode(line) for line in lines if line.endswith(b"\n")]
    return list(
        {json.dumps(entry.get("record"), sort_keys=True): entry for entry in found}.values()
    )


def _remove_unused(store: Path) -> None:
    """What is left of processes that were killed while they made a folder, or removed one."""
    for path in store.iterdir():
        if path.is_file() and path.name.startswith(".store.json."):
            path.unlink(missing_ok=True)
        elif path.name.startswith(GONE_PREFIX):
            shutil.rmtree(path, ignore_errors=True)
        elif (
            path.name.partition("-")[0].isdigit()
            and not (path / "store.json").exists()
            and (lock := FileLock.take(path / "lock"))
        ):
            shutil.rmtree(path, ignore_errors=True)
            lock.release()


def encode(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if isinstance(record, dict):
        return record
    return {"op": DAMAGED, "line": line.decode("ascii", "replace").strip()}


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text)
    failpoint("spool.before_rename")
    temporary.replace(path)
