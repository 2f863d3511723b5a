"""Licence and consent from a JSON file beside the footage: `film.mp4.json`, or `film.json`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from pipelines.config import RequestError
from pipelines.curation.found import Found
from pipelines.curation.rights.stated import Rights, as_text
from pipelines.storage import Store, is_local

MAX_SIDECAR_BYTES = 1 << 20


def rights_beside(found: Found) -> list[Rights]:
    """What is stated beside the file, the file of the very name first."""
    if is_local(found.path):
        return [_rights_in(_bytes_of_file(Path(name))) for name in names_beside(found.path)]
    beside = json.loads(found.beside) if found.beside else []
    return [_rights_in(_bytes_of_object(uri)) for uri in beside]


def names_beside(path: str) -> list[str]:
    stem, suffix = os.path.splitext(path)
    names = (f"{path}.json", f"{stem}.json") if suffix else ()
    return [name for name in names if name != path]


def _bytes_of_file(sidecar: Path) -> bytes:
    """Empty for anything but a readable regular file of a sidecar's size."""
    try:
        status = os.lstat(sidecar)
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_SIDECAR_BYTES:
            return sidecar.read_bytes()
    except OSError:
        pass
    return b""


def _bytes_of_object(uri: str) -> bytes:
    """The listing knew its size. Empty where it has gone since, or is closed to us."""
    folder, _, name = uri.rpartition("/")
    try:
        with Store(folder).as_local_file(name) as copy:
            return copy.read_bytes()
    except (FileNotFoundError, RequestError):
        return b""


def _rights_in(data: bytes) -> Rights:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return Rights()
    if not isinstance(told, dict):
        return Rights()
    return Rights(as_text(told.get("license")), as_text(told.get("consent")))
