"""A disk of a few MiB, that can be grown, and made read-only, while jobs use it. Needs root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    folder: Path

    def grow(self, size_mib: int) -> None:
        self._remount(f"size={size_mib}m,rw")

    def make_read_only(self) -> None:
        self._remount("ro")

    def make_writable(self) -> None:
        self._remount("rw")

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size_mib}m"]
    subprocess.run(["mount", *options, "chaos", folder], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
