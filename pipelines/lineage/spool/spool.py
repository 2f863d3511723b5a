"""Records on their way to a tracking server that may be slow, locked or gone.

Tracking describes a job and must never end it: what is recorded goes to disk (spool_files.py) and
is delivered from there in order, by whoever can: the job's own thread, a later job, or a replay.
A process that dies after a delivery and before the mark makes the next one deliver again, so
delivering a record twice must be the same as once: that is the sink's business.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.lineage.spool.attachments import Attachment, Attachments
from pipelines.lineage.spool.files import DAMAGED, START, Line, Position, Record, SpoolFolder

logger = logging.getLogger(__name__)

# How often a server that is well otherwise may fail on the same record.
DOUBTFUL_ATTEMPTS = 4
FAILURES_OF_FILES = 2


class Verdict(enum.Enum):
    """What a failed delivery means for the record."""

    LATER = "the server is not there, or busy"
    NOT_YET = "another process's record must come first"
    DOUBTFUL = "the server failed on it: its own trouble, or this record's"
    HOPELESS = "refused, and will be for ever"


class Sink(Protocol):
    """Where records go."""

    def groups(self, records: Sequence[Record]) -> Iterator[int]:
        """Lengths of the stretches that go in one delivery each."""

    def deliver(self, records: Sequence[Record]) -> None:
        """One stretch. Safe to repeat. Raises what it likes."""

    def attach(self, record: Record) -> None:
        """A file, {"op": "file", "run", "folder", "file"}. Safe to repeat. Raises."""

    def verdict(self, error: Exception) -> Verdict:
        """Of an error that `deliver` or `attach` raised."""

    def is_alive(self) -> bool:
        """Whether the server answers a plain question now."""


class Spool:
    """What one process writes: on disk, or in memory while the disk does not take it."""

    def __init__(self, create: Callable[[], SpoolFolder]) -> None:
        self._create = create
        self._folder: SpoolFolder | None = None
        self._in_memory: deque[Record] = deque()
        self._dropped = 0
        self._warned = False
        self._lock = threading.RLock()

    @property
    def place(self) -> Path | None:
        return self._folder.path if self._folder else None

    def append(self, record: Record) -> None:
        """Never raises because of the disk."""
        with self._lock:
            try:
                # In order: nothing passes what could not be written.
                if self._in_memory:
                    raise OSError("earlier records wait")
                self._open().append(record)
            except OSError as error:
                self._in_memory.append(record)
                self._warn(error)

    def _open(self) -> SpoolFolder:
        if self._folder is None:
            self._folder = self._create()
        return self._folder

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "tracking: records cannot be kept on disk (%s); the job goes on, they wait in "
                "memory",
                one_line(error),
            )

    def attachments(self) -> Attachments | None:
        """None where there is no disk to keep files on."""
        with self._lock:
            try:
                return Attachments(self._open().path)
            except OSError as error:
                self._warn(error)
                return None

    def set_open_runs(self, runs: list[str]) -> None:
        with self._lock:
            try:
                self._open().set_open_runs(runs)
            except OSError as error:
                self._warn(error)

    def read(self) -> list[Line]:
        folder = self._folder  # reading takes a while; the job's thread must not wait for it
        lines = folder.read() if folder else []
        if lines or not self._in_memory:
            return lines
        with self._lock:
            self._write_what_waits()
            if not self._in_memory and self._folder:
                return self._folder.read()
            ends = range(self._dropped + 1, self._dropped + 1 + len(self._in_memory))
            return [Line(r, (0, end)) for r, end in zip(self._in_memory, ends, strict=True)]

    def _write_what_waits(self) -> None:
        try:
            while self._in_memory:
                self._open().append(self._in_memory[0])
                self._in_memory.popleft()
                self._dropped += 1
            self._warned = False
        except OSError:
            pass

    def mark(self, position: Position) -> None:
        if position[0] >= START[0]:
            assert self._folder is not None
            self._folder.mark(position)
            return
        with self._lock:
            while self._dropped < position[1] and self._in_memory:
                self._in_memory.popleft()
                self._dropped += 1

    def refuse(self, record: Record, reason: str) -> None:
        if self._folder is not None:
            self._folder.refuse(record, reason)

    def sync(self) -> None:
        if self._folder is not None:
            self._folder.sync()

    def remove(self) -> None:
        """When everything is delivered. The next record makes a new folder."""
        with self._lock:
            if self._folder is not None and not self._in_memory:
                self._folder.remove()
                self._folder = None


@dataclass
class Sent:
    """What one attempt did. `error`: why it ended before everything was gone."""

    records: int = 0
    files: int = 0
    refused: int = 0
    error: Exception | None = None
    verdict: Verdict | None = None


class Sender:
    """Takes what waits in one spool to a sink."""

    def __init__(self, spool: Spool | SpoolFolder, sink: Sink, on_progress: Callable[[], None]):
        self.spool, self.sink, self.on_progress = spool, sink, on_progress
        self._doubted: tuple[Position, int] = (START, 0)

    def send_records(self) -> Sent:
        """Everything that waits, in order, until one must wait."""
        sent = Sent()
        while not sent.error and (lines := self.spool.read()):
            first = 0
            for length in self.sink.groups([line.record for line in lines]):
                self._send_group(lines[first : first + length], sent)
                if sent.error:
                    break
                first += length
        return sent

    def _send_group(self, lines: Sequence[Line], sent: Sent) -> None:
        try:
            if any(line.record.get("op") == DAMAGED for line in lines):
                raise DamagedLine("the line is damaged")
            self.sink.deliver([line.record for line in lines])
        except Exception as error:
            verdict = self._verdict(lines[0].end, error)
            if verdict is not Verdict.HOPELESS:
                sent.error, sent.verdict = error, verdict
                return
            if len(lines) > 1:
                for line in lines:
                    if not sent.error:
                        self._send_group([line], sent)
                return
            self._refuse(lines[0].record, error)
            sent.refused += 1
        else:
            sent.records += len(lines)
        self.spool.mark(lines[-1].end)
        self.on_progress()

    def _verdict(self, place: Position, error: Exception) -> Verdict:
        """A record on which a healthy server fails again and again is hopeless too; what a proxy
        says in a server's place is not the server's word."""
        if isinstance(error, DamagedLine):
            return Verdict.HOPELESS
        verdict = self.sink.verdict(error)
        if verdict in (Verdict.LATER, Verdict.NOT_YET):
            return verdict
        if not self.sink.is_alive():
            return Verdict.LATER
        if verdict is Verdict.HOPELESS:
            return verdict
        at, times = self._doubted
        self._doubted = (place, times + 1 if at == place else 1)
        return Verdict.HOPELESS if self._doubted[1] >= DOUBTFUL_ATTEMPTS else verdict

    def _refuse(self, record: Record, error: Exception) -> None:
        logger.warning("tracking refused %s: %s", name_of(record), one_line(error))
        self.spool.refuse(record, one_line(error))

    def send_files(self, attachments: Attachments) -> Sent:
        """Each for itself: a broken artifact store holds back no record, nor one file another."""
        sent, failures = Sent(), 0
        for waiting in attachments.waiting():
            try:
                self.sink.attach(waiting.record)
            except Exception as error:
                if self.sink.verdict(error) is Verdict.HOPELESS and self.sink.is_alive():
                    self._refuse_file(attachments, waiting, error)
                    sent.refused += 1
                    continue
                sent.error, sent.verdict = error, self.sink.verdict(error)
                failures += 1
                if failures >= FAILURES_OF_FILES:
                    break
            else:
                attachments.delivered(waiting)
                sent.files += 1
                self.on_progress()
        return sent

    def _refuse_file(self, attachments: Attachments, waiting: Attachment, error: Exception) -> None:
        self._refuse(waiting.record, error)
        attachments.refuse(waiting)


class DamagedLine(Exception):
    """A whole line of a spool file that is no record."""


def name_of(record: Record) -> str:
    """How messages refer to a record."""
    what = str(record.get("name") or record.get("file", "").rpartition("/")[2])
    return one_line(f"{record.get('op', 'record')} {what}".strip(), 100)


def one_line(error: object, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
