"""What the report is told, and the few words that all of it is said in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipelines.curation.report_rows import ReportRows, Share
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
    rows: ReportRows
    num_shards: int
    shard_bytes: int
    stages: Sequence[tuple[str, str]]
    limits: Mapping[str, Sequence[float]]
    stage_times: Sequence[TimedRow]
    slowest: Sequence[TimedRow]
    frames_of: Callable[[Clip], Sequence[bytes]]
    media_of: Callable[[Clip], bytes]
    cut_counts: Mapping[str, Any] = field(default_factory=dict)


def reasons_of(shares: Iterable[Share]) -> list[tuple[str, int]]:
    """(reason, clips) of the dropped, most frequent first."""
    counts: Counter[str] = Counter()
    for share in shares:
        if share.verdict == "dropped":
            counts[share.reason] += share.clips
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def count_kept(rows: ReportRows) -> int:
    return sum(share.clips for share in rows.shares if share.verdict == "kept")


def cuts_in_words(counts: Mapping[str, Any]) -> str:
    """How the kept clips were cut and what leaked into them; empty: nothing is known."""
    if not counts:
        return ""
    ways = counts["cuts"]
    cut = (
        f"Cut: {ways['copied']} clips copied as they were coded, {ways['copied_with_edges']} with "
        f"coded edges, {ways['encoded']} coded again."
    )
    if not counts["leak_checked"]:
        return f"{cut} Boundary leak: no clip was checked."
    leak = (
        f"Boundary leak: {counts['leak_frames']} frames of another shot and "
        f"{counts['lost_frames']} lost frames in {counts['leak_checked']} checked clips"
    )
    again = f" ({counts['cut_again']} were cut again)" if counts["cut_again"] else ""
    return f"{cut} {leak}{again}."


def duration_in_words(seconds: float) -> str:
    """`4.2 s` below ten seconds, else as progress lines say it."""
    return f"{seconds:.1f} s" if seconds < 10 else in_words(seconds)


def name_of(source: Source) -> str:
    """The file's name without its folder."""
    return file_name(source.uris[0]) if source.uris else source.source_id[:8]


def file_name(uri: str) -> str:
    return PurePosixPath(uri).name or uri
