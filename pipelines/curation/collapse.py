"""Files of the same bytes are one source with several names."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from pipelines.curation.found import Found
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.packed import Packed, pack, unpack
from pipelines.curation.rights.policy import strictest
from pipelines.curation.rights.stated import Rights
from pipelines.lineage.sorted_lines import SortedLines
from pipelines.records import Source

#: A file of which nothing is asked but what is stated of it.
ANY_RIGHTS = LimitsConfig()

_fields = attrgetter(*(field.name for field in dataclasses.fields(Source)))


@dataclass(frozen=True, slots=True)
class Footage:
    """One source and where its bytes can be read: the file that was read, then its other copies
    (a caption may lie beside one of them)."""

    source: Source
    paths: tuple[str, ...]

    @property
    def path(self) -> str:
        return self.paths[0]


def collapse(
    identified: Iterable[tuple[Found, Source]], policy: LimitsConfig = ANY_RIGHTS
) -> Iterator[Footage]:
    """One per content, with all its names, sorted by id; sorted on disk where they are very many.

    Of contents that differ in licence or consent between their names the strictest counts.
    """
    lines = SortedLines()
    lines.add(_line(found, source) for found, source in identified)
    for _, group in itertools.groupby(lines.in_order(), lambda line: line.partition(b"\0")[0]):
        yield _collapsed([_of_line(line) for line in group], policy)


def packed(footage: Iterable[Footage]) -> Sequence[Footage]:
    """The same in little memory."""
    return Packed(
        footage,
        lambda one: [_fields(one.source), one.paths],
        lambda plain: Footage(Source(*plain[0]), tuple(plain[1])),
    )


def _line(found: Found, source: Source) -> bytes:
    """Sorts by id, then by name."""
    key = source.source_id.encode() + b"\0" + found.uri.encode() + b"\0"
    return key + pack([found.path, _fields(source)])


def _of_line(line: bytes) -> tuple[str, Source]:
    path, fields = unpack(line.split(b"\0", 2)[2])
    return path, Source(*fields)


def _collapsed(group: Sequence[tuple[str, Source]], policy: LimitsConfig) -> Footage:
    sources = [source for _, source in group]
    path, usable = next((pair for pair in group if pair[1].status == "ok"), group[0])
    rights = strictest((Rights(s.license, s.consent) for s in sources), policy)
    source = dataclasses.replace(
        usable,
        uris=sorted(uri for s in sources for uri in s.uris),
        license=rights.license,
        consent=rights.consent,
    )
    return Footage(source, (path, *(other for other, _ in group if other != path)))
