"""What a curation made, and what a person must be told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.curation.publish import REPORT_FILE
from pipelines.curation.report_facts import TimedRow
from pipelines.curation.rights.counts import COUNTED_BY_STRANGERS_WORDS
from pipelines.job import say
from pipelines.storage import Store


@dataclass(frozen=True)
class Curated:
    """What was made."""

    dataset: str
    manifest: dict[str, Any]
    seconds: float
    #: Files watched and reused, clips captioned and scored, cut and taken from earlier datasets.
    done: Mapping[str, int] = field(default_factory=dict)
    stage_times: Sequence[TimedRow] = ()

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.manifest["counts"])

    @property
    def report(self) -> str:
        return f"{self.dataset}/{REPORT_FILE}"

    def local_report(self) -> AbstractContextManager[Path]:
        return Store(self.dataset).as_local_file(REPORT_FILE)

    def metrics(self) -> dict[str, float]:
        """Counts by name: sources, clips, kept, dropped, reasons/..., done/..., seconds.

        Licences and consents are text that strangers wrote, and no names for metrics.
        """
        found = {"seconds": self.seconds}
        found |= {f"done/{name}": float(n) for name, n in self.done.items()}
        for name, value in self.counts.items():
            if name in COUNTED_BY_STRANGERS_WORDS:
                continue
            if isinstance(value, dict):
                found |= {f"{name}/{key}": float(n) for key, n in value.items()}
            else:
                found[name] = float(value)
        return found


def say_result(curated: Curated) -> None:
    """What a person must not overlook."""
    counts = curated.counts
    if counts["kept"] == 0:
        reasons = sorted(counts["reasons"].items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{reason} {n}" for reason, n in reasons)
        files = ", ".join(f"{reason} {n}" for reason, n in counts["source_reasons"].items())
        say(f"NOTHING WAS KEPT of {counts['clips']} clips from {counts['sources']} files.")
        say(f"  clips dropped: {why or 'none found'}; files failed: {files or 'none'}")
        say(f"  look at {curated.dataset}/report.html, then lower the threshold that is to blame")
