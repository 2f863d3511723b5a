"""The sha256 of files and bytes: what datasets, latents and checkpoints are vouched for with."""

from __future__ import annotations

import hashlib
from pathlib import Path

COPY_CHUNK_BYTES = 4 << 20


def sha256_of_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(COPY_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
