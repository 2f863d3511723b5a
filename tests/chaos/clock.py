"""The clock of a job's processes, moved by hours while they run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOOK = Path(__file__).resolve().parent / "shifted_clock"


@dataclass(frozen=True)
class Clock:
    """`link` points to the seconds it is off by; it is read at every look at the clock."""

    link: Path

    def environment(self, before: Mapping[str, str] = os.environ) -> dict[str, str]:
        """For the driver; the workers that it starts inherit it."""
        path = os.pathsep.join(filter(None, [str(HOOK), before.get("PYTHONPATH", "")]))
        return {"PYTHONPATH": path, "I2VGEN_CLOCK": str(self.link)}

    def jump_to(self, offset_s: int) -> None:
        new = self.link.with_suffix(".new")
        new.symlink_to(str(offset_s))
        new.rename(self.link)

    def seen_by(self) -> set[int]:
        """The processes that looked at a clock that had jumped."""
        found = self.link.parent.glob(f"{self.link.name}.seen-by-*")
        return {int(path.name.rpartition("-")[2]) for path in found}
