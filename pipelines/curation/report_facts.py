"""What the report is told, and the few words that all of it is said in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipelines.progress import in_words
from pipelines.records import Clip, Source


@dataclass(frozen=True)
class TimedRow:
    """A line of a table of times."""

    title: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class ReportFacts:
    """Everything the page shows. `frames_of` and `media_of` give JPEG frames and cut media."""

    digest: str
    config: Any
    config_hash: str
    sources: Sequence[Source]
    clips: Sequence[Clip]
    num_shards: int
    shard_bytes: int
    stages: Sequence[tuple[str, str]]
    limits: Mapping[str, Sequence[float]]
    stage_times: Sequence[TimedRow]
    slowest: Sequence[TimedRow]
    frames_of: Callable[[Clip], Sequence[bytes]]
    media_of: Callable[[Clip], bytes]


def reasons_of(clips: Iterable[Clip]) -> list[tuple[str, int]]:
    """(reason, clips) of the dropped, most frequent first."""
    counts = Counter(c.reason or "unknown" for c in clips if c.verdict == "dropped")
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def duration_in_words(seconds: float) -> str:
    """`4.2 s` below ten seconds, else as progress lines say it."""
    return f"{seconds:.1f} s" if seconds < 10 else in_words(seconds)


def name_of(source: Source) -> str:
    """The file's name without its folder."""
    return file_name(source.uris[0]) if source.uris else source.source_id[:8]


def file_name(uri: str) -> str:
    return PurePosixPath(uri).name or uri
