"""One run of the graph: what its stages share, and what they leave behind for the report."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.curation.collapse import Footage
from pipelines.curation.report_facts import TimedRow
from pipelines.curation.work import Work
from pipelines.curation.workers import Workers


@dataclass
class GraphRun:
    """The work and who does it, the time each stage took, and what was done of how many."""

    work: Work
    workers: Workers
    times: list[TimedRow] = field(default_factory=list)
    slowest: list[TimedRow] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def timed(self, title: str, note: str) -> Iterator[Callable[[str], None]]:
        """Times a stage; the function it gives replaces the note."""
        started_s, notes = time.monotonic(), [note]
        yield notes.append
        self.times.append(TimedRow(title, time.monotonic() - started_s, notes[-1]))


def is_readable(footage: Footage) -> bool:
    """Whether there is something to watch."""
    return footage.source.status == "ok"


def paths_of_footage(footage: Footage) -> list[bytes]:
    """The file that was read, then its other copies (a caption may lie beside one of them)."""
    return [os.fsencode(path) for path in footage.paths]
