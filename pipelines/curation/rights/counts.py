"""What is kept and what is refused under each licence: for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
    kept_s: Counter[str] = Counter()
    for clip in kept:
        kept_s[clip.license or NOT_STATED] += clip.duration_s  # type: ignore[assignment]
    rows = [
        LicenseRow(name, watched[name], count[name], float(kept_s[name]), refused[name])
        for name in {*watched, *refused, *count}
    ]
    return sorted(rows, key=lambda r: (-r.kept_s, -r.kept_clips, r.license))
