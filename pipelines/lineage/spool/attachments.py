"""Files on their way to a run: copied, so that they survive the job that made them."""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.failpoints import failpoint

KEPT_FILE_BYTES = 64 << 20
KEPT_BYTES = 1 << 30  # of one process together
COPIES = "copy"

_counting = threading.Lock()


@dataclass(frozen=True)
class Attachment:
    """A file for the run `run`, to lie in its artifact folder `folder`."""

    place: Path
    run: str
    folder: str
    file: Path

    @property
    def record(self) -> dict[str, Any]:
        return {"op": "file", "run": self.run, "folder": self.folder, "file": str(self.file)}


class Attachments:
    """The files that wait in one spool folder. Each is delivered for itself: one that cannot go
    holds back no other, and no record."""

    def __init__(self, spool: Path) -> None:
        self.path = spool / "files"
        self._kept_bytes = 0

    def keep(self, run: str, source: Path, folder: str) -> None:
        """Copies a file of at most KEPT_FILE_BYTES; a larger one is delivered from where it is,
        if it is still there then. Raises OSError."""
        size_bytes = source.stat().st_size
        fits = size_bytes <= KEPT_FILE_BYTES and self._kept_bytes + size_bytes <= KEPT_BYTES
        with _New(self.path) as new:
            if fits:
                shutil.copyfile(source, new.copies / source.name)
                self._kept_bytes += size_bytes
            new.finish(run, folder, source.name if fits else str(source.absolute()))

    def keep_bytes(self, run: str, data: bytes, name: str, folder: str = "") -> None:
        with _New(self.path) as new:
            (new.copies / name).write_bytes(data)
            new.finish(run, folder, name)

    def waiting(self) -> list[Attachment]:
        """Oldest first."""
        if not self.path.is_dir():
            return []
        places = sorted(p for p in self.path.iterdir() if p.name.isdigit())
        return [found for place in places if (found := _read(place))]

    def delivered(self, attachment: Attachment) -> None:
        shutil.rmtree(attachment.place, ignore_errors=True)

    def refuse(self, attachment: Attachment) -> None:
        """Moves the copy to where people find it."""
        aside = self.path.parent.parent / "refused-files"
        aside.mkdir(exist_ok=True)
        attachment.place.rename(aside / f"{self.path.parent.name}-{uuid.uuid4().hex[:8]}")


def _read(place: Path) -> Attachment | None:
    try:
        made = json.loads((place / "record.json").read_bytes())
        return Attachment(place, made["run"], made["folder"], place / COPIES / made["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _New:
    """A folder that appears when it is whole."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.path = files / f".new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.copies = self.path / COPIES

    def __enter__(self) -> _New:
        self.copies.mkdir(parents=True)
        return self

    def finish(self, run: str, folder: str, file: str) -> None:
        made = {"run": run, "folder": folder, "file": file}
        (self.path / "record.json").write_text(json.dumps(made))
        failpoint("attachment.before_rename")
        with _counting:
            numbers = [int(p.name) for p in self.files.iterdir() if p.name.isdigit()]
            self.path.rename(self.files / f"{max(numbers, default=0) + 1:08d}")
        failpoint("attachment.after_rename")

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
