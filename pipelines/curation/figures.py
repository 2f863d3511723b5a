"""What the progress line and the report say while and after the footage is watched."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from pipelines import metrics
from pipelines.curation.report_facts import TimedRow
from pipelines.curation.work import Row


class Figures:
    """Sums over the rows that come out of the graph."""

    def __init__(self) -> None:
        self.clips, self.footage_s, self.fresh_s = 0, 0.0, 0.0
        self.done = Counter({"watched": 0, "reused": 0, "captioned": 0, "scored": 0})
        self.spent_s = {"watch": 0.0, "caption": 0.0, "score": 0.0}
        self.started_s = time.monotonic()
        self._files: list[tuple[float, float, str]] = []

    def add(self, row: Row) -> None:
        metrics.tell_watched(row)
        self.clips += row["clips"]
        self.footage_s += row["footage_s"]
        self.done["watched" if row["watched_now"] else "reused"] += 1
        for count in ("captioned", "scored"):
            self.done[count] += row.get(count, 0)
        for stage in self.spent_s:
            self.spent_s[stage] += row.get(f"{stage}_seconds", 0.0)
        if row["watched_now"]:
            self.fresh_s += row["footage_s"]
            self._files.append((row["watch_seconds"], row["footage_s"], row["name"]))

    def add_reused(self, files: int, clips: int, footage_s: float) -> None:
        """Files of which earlier runs had done everything."""
        self.clips += clips
        self.footage_s += footage_s
        self.done["reused"] += files

    def shown(self) -> dict[str, Any]:
        elapsed_s = max(time.monotonic() - self.started_s, 1e-3)
        shown = {"clips": self.clips, "seen": f"{self.footage_s / 3600:.2f} h of footage"}
        if self.done["watched"]:
            shown["at"] = f"{self.fresh_s / elapsed_s:.1f}x real time"
        return shown

    def sentence(self) -> str:
        spent = ", ".join(f"{stage} {s:.1f} s" for stage, s in self.spent_s.items())
        before = self.done["reused"]
        reused = f"; {before} files were watched before" if before else ""
        return f"worker seconds: {spent}{reused}"

    def slowest(self) -> list[TimedRow]:
        """Files by the seconds they took, longest first, with their speed over real time."""
        ranked = sorted(self._files, reverse=True)
        return [TimedRow(n, s, f"{film_s / s:.1f}" if s > 0 else "") for s, film_s, n in ranked]
