"""What is kept and what is refused under each licence: for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.curation.rights.stated import NOT_STATED
from pipelines.records import Clip, Source

COUNTED_BY_STRANGERS_WORDS = ("licenses", "consent")


@dataclass(frozen=True)
class LicenseRow:
    """One licence: files that gave pictures, what is kept of them, files refused unseen."""

    license: str
    sources: int
    kept_clips: int
    kept_s: float
    refused: int


def license_rows(sources: Sequence[Source], clips: Iterable[Clip]) -> list[LicenseRow]:
    """Most kept time first."""
    kept = [c for c in clips if c.verdict == "kept"]
    watched = Counter(s.license or NOT_STATED for s in sources if s.status == "ok")
    refused = Counter(s.license or NOT_STATED for s in sources if s.reason == "licence_refused")
    count = Counter(c.license or NOT_STATED for c in kept)
    kept_s: dict[str, float] = {}
    for clip in kept:
        name = clip.license or NOT_STATED
        kept_s[name] = kept_s.get(name, 0.0) + clip.duration_s
    return license_table(watched, refused, count, kept_s)


def license_table(
    watched: Mapping[str, int],
    refused: Mapping[str, int],
    kept: Mapping[str, int],
    kept_s: Mapping[str, float],
) -> list[LicenseRow]:
    """From counts by licence, most kept time first."""
    rows = [
        LicenseRow(
            name,
            watched.get(name, 0),
            kept.get(name, 0),
            kept_s.get(name, 0.0),
            refused.get(name, 0),
        )
        for name in {*watched, *refused, *kept}
    ]
    return sorted(rows, key=lambda r: (-r.kept_s, -r.kept_clips, r.license))
