"""Licence and consent from a JSON file beside the footage: `film.mp4.json`, or `film.json`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from pipelines.curation.rights.stated import Rights, as_text

MAX_SIDECAR_BYTES = 1 << 20


def rights_beside(path: str) -> list[Rights]:
    """What is stated beside the file at `path`, the file of the very name first."""
    if not os.path.splitext(path)[1]:
        return []
    beside = (f"{path}.json", os.path.splitext(path)[0] + ".json")
    return [_rights_in(Path(name)) for name in beside if name != path]


def _rights_in(sidecar: Path) -> Rights:
    try:
        status = os.lstat(sidecar)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIDECAR_BYTES:
            return Rights()
        told = json.loads(sidecar.read_bytes())
    except (OSError, ValueError, RecursionError):
        return Rights()
    if not isinstance(told, dict):
        return Rights()
    return Rights(as_text(told.get("license")), as_text(told.get("consent")))
