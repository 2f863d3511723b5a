"""Our own rules for whatever runs in a container, wherever it is written down."""

from __future__ import annotations

import re
from collections.abc import Iterator

SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|ACCESS_KEY)[A-Z_]*$")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def is_secret(variable: str) -> bool:
    return bool(SECRET.search(variable))


def unpinned(where: str, image: str) -> Iterator[str]:
    """A tag that moves gives another program tomorrow."""
    if not image or DIGEST.search(image):
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest"):
        yield f"{where}: image {image!r} has no fixed tag"
