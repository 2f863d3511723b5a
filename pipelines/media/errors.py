"""What can be wrong with a file, as one of the reason codes a row carries."""

from __future__ import annotations

from pipelines.records import REASONS


class MediaError(Exception):
    """A file that gives no picture. `reason` is a key of `records.REASONS`; `detail` is for logs.

    Bad media is data, not a fault: the stage that meets this error turns it into a row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not a reason code of pipelines.records.REASONS")
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
