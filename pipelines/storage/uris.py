"""Whether a URI is a place on this machine, and what it is from anywhere."""

from __future__ import annotations

from pathlib import Path


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def absolute_uri(uri: str) -> str:
    """A URI that means the same from any working directory (a Ray job runs in another one)."""
    if not is_local(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().absolute())
