"""Whether a file may hold a C2PA manifest, from a few headers at its top level.

Reading a manifest takes a child process and, to check it, the whole file. Hardly any footage has
one, so only a file with one of these signs pays: the C2PA `uuid` box of MP4 and its kin, an APP11
segment of JPEG, a caBX chunk of PNG, a C2PA chunk of AVI and WebP. Only headers are read, at most
`MAX_PARTS` of them: whatever the bytes say, it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

MAX_PARTS = 4096
_UUID_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_FIRST_BOXES = frozenset((b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid"))
_PNG = b"\x89PNG\r\n\x1a\n"
_RIFF_FORMATS = {b"AVI ": "video/avi", b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_HEADER_BYTES = 32
_START_OF_SCAN, _END_OF_IMAGE, _APP11 = 0xDA, 0xD9, 0xEB


def manifest_format(path: str) -> str | None:
    """The media type to read a manifest by, where there is a sign of one; None otherwise.

    Never raises for what the bytes say. Raises OSError when the file cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags)
    try:
        return _format_in(descriptor)
    finally:
        os.close(descriptor)


def _format_in(file: int) -> str | None:
    head = _read_at(file, _HEADER_BYTES, 0)
    if head[4:8] in _FIRST_BOXES:
        return "video/mp4" if any(u == _UUID_C2PA for u in _uuids_of_boxes(file)) else None
    if head[:2] == b"\xff\xd8":
        return "image/jpeg" if _APP11 in _segments(file) else None
    if head[:8] == _PNG:
        return "image/png" if b"caBX" in _chunks(file, 8, "big") else None
    riff = _RIFF_FORMATS.get(head[8:12]) if head[:4] == b"RIFF" else None
    return riff if riff and b"C2PA" in _chunks(file, 12, "little") else None


def _uuids_of_boxes(file: int) -> Iterator[bytes]:
    at = 0
    for _ in range(MAX_PARTS):
        head = _read_at(file, _HEADER_BYTES, at)
        if len(head) < 8:
            return
        size, payload = int.from_bytes(head[:4], "big"), 8
        if size == 1:  # the size is in the next eight bytes
            size, payload = int.from_bytes(head[8:16], "big"), 16
        if head[4:8] == b"uuid":
            yield _read_at(file, 16, at + payload)
        if size < payload:  # 0: the last box; anything else is no box
            return
        at += size


def _segments(file: int) -> Iterator[int]:
    at = 2
    for _ in range(MAX_PARTS):
        head = _read_at(file, 4, at)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (_START_OF_SCAN, _END_OF_IMAGE):
            return
        yield head[1]
        at += 2 + int.from_bytes(head[2:4], "big")


def _chunks(file: int, start: int, order: str) -> Iterator[bytes]:
    """Names of the chunks of PNG (length, name, data, checksum) or RIFF (name, length, data)."""
    at = start
    for _ in range(MAX_PARTS):
        head = _read_at(file, 8, at)
        if len(head) < 8:
            return
        if order == "big":
            yield head[4:8]
            at += 12 + int.from_bytes(head[:4], "big")
        else:
            yield head[:4]
            size = int.from_bytes(head[4:8], "little")
            at += 8 + size + size % 2


def _read_at(file: int, size: int, at: int) -> bytes:
    """Nothing where no file reaches: a header may claim a size beyond what can be asked for."""
    return os.pread(file, size, at) if at < 1 << 62 else b""
