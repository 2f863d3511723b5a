"""One entry of the footage, as it was listed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from pipelines.curation.packed import Packed, pack, unpack
from pipelines.lineage.sorted_lines import SortedLines

#: Text and data that accompany footage, by suffix: they get a row, and never a decoder.
SIDECAR_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("json", "jsonl", "csv", "tsv", "txt", "md", "xml", "yaml", "yml", "parquet", "html"),
        *("srt", "vtt", "ass", "ssa", "sub", "nfo", "sha256", "md5", "log"),
    )
)


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of the footage. `path` opens it (any bytes, as the system names it), or is the URI
    of an object.

    `uri` names it in rows: relative to the footage, always text, different for different files.
    `problem` is a reason code when there is nothing to decode. Of an object, `version` changes when
    it is written again, and `beside` is JSON of the URIs of what states its rights.
    """

    uri: str
    path: str
    size_bytes: int = 0
    mtime_ns: int = 0
    problem: str | None = None
    version: str = ""
    beside: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when the file is written again: what may be remembered about it is void."""
        return f"{self.size_bytes}-{self.version or self.mtime_ns}"


_fields = attrgetter(*(field.name for field in dataclasses.fields(Found)))


def sorted_by_name(found: Iterable[Found]) -> Packed[Found]:
    """In order of their names, however many they are."""
    lines = SortedLines()
    lines.add(one.uri.encode() + b"\0" + pack(_fields(one)) for one in found)
    in_order = (unpack(line.partition(b"\0")[2]) for line in lines.in_order())
    return Packed((Found(*plain) for plain in in_order), _fields, lambda plain: Found(*plain))


def problem_of_name(name: str) -> str | None:
    return "sidecar" if os.path.splitext(name)[1].lower() in SIDECAR_SUFFIXES else None


def readable_name(raw: bytes) -> str:
    r"""A name as text. Bytes that are not UTF-8, control characters and the backslash itself are
    written as \xNN or \\, so that different names stay different and a name is one line.
    """
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(_readable(character) for character in text)


def _readable(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() or character == "\u200d":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))
