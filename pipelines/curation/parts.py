"""The footage in runs of sources, each of which becomes a part of judged clips."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from pipelines.curation.collapse import Footage
from pipelines.curation.judged_parts import PART_SOURCES, part_row
from pipelines.curation.work import Row


@dataclass
class Parts:
    """The footage in order of ids. `written`: the names of the parts that are there."""

    footage: Sequence[Footage]
    written: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        return [f"{number:06d}" for number in range(-(-len(self.footage) // PART_SOURCES))]

    def unwritten(self) -> list[str]:
        return [name for name in self.names if name not in self.written]

    def first_of(self, name: str) -> int:
        return int(name) * PART_SOURCES

    def footage_of(self, name: str) -> Sequence[Footage]:
        first = self.first_of(name)
        return self.footage[first : first + PART_SOURCES]

    def row(self, name: str, seen: Container[str] | None = None) -> Row:
        """What `judge_part` is told; all must be done, if not that only those `seen` may be."""
        return part_row(name, [f.source for f in self.footage_of(name)], seen)
