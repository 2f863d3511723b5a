"""The footage under its rights: the table laid over every file, copies bound by the strictest,
what is refused or taken down marked before anything of it is watched."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from pipelines.curation.collapse import Footage
from pipelines.curation.found import Found
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.rights.policy import merged, refuses
from pipelines.curation.rights.stated import NOT_STATED, Rights
from pipelines.curation.rights.table import RightsTable
from pipelines.lineage.tombstones import Tombstones
from pipelines.records import Source

SHOWN = 6
#: Reasons of files that hold pictures for all we know, but are not to be watched.
REFUSED = ("licence_refused", "taken_down")


def under_table(
    identified: Iterable[tuple[Found, Source]], table: RightsTable, policy: LimitsConfig
) -> Iterator[tuple[Found, Source]]:
    """Every file with what the table says of it, above what the file's surroundings say."""
    for found, source in identified:
        yield found, _under_table(source, found, table, policy)


def _under_table(source: Source, found: Found, table: RightsTable, policy: LimitsConfig) -> Source:
    told = [row.rights for row in table.rows_for(found.uri, source.source_id)]
    rights = merged([*told, rights_of(source)], policy)
    return dataclasses.replace(source, license=rights.license, consent=rights.consent)


def admitted(
    footage: Iterable[Footage], policy: LimitsConfig, tombstones: Tombstones
) -> Iterator[Footage]:
    """The same footage, what must not be watched failed with its reason."""
    for one in footage:
        yield dataclasses.replace(one, source=_admitted(one.source, policy, tombstones))


def _admitted(source: Source, policy: LimitsConfig, tombstones: Tombstones) -> Source:
    if source.status != "ok":
        return source
    if tombstones.covers_source(source.source_id):
        return dataclasses.replace(source, status="failed", reason="taken_down")
    if refuses(rights_of(source), policy):
        return dataclasses.replace(source, status="failed", reason="licence_refused")
    return source


def rights_of(row: Source) -> Rights:
    return Rights(row.license, row.consent)


def rights_line(footage: Iterable[Footage]) -> str:
    """What is stated of the films and stills, in one line; empty where nothing is."""
    stated: Counter[Rights] = Counter()
    refused: Counter[str | None] = Counter()
    for source in (one.source for one in footage):
        if source.status == "ok" or source.reason in REFUSED:
            stated[rights_of(source)] += 1
        if source.status != "ok" and source.reason in REFUSED:
            refused[source.reason] += 1
    if not refused and not any(rights.license or rights.consent for rights in stated):
        return ""
    line = rights_in_words(stated, refused["licence_refused"])
    down = refused["taken_down"]
    return f"rights: {line}" + (f"; taken down before {down}" if down else "")


def rights_in_words(stated: Mapping[Rights, int], refused: int) -> str:
    """`licences CC0-1.0 12, not stated 3; consent yes 4, not stated 11; refused 2`."""
    licenses: Counter[str] = Counter()
    consents: Counter[str] = Counter()
    for rights, files in stated.items():
        licenses[rights.license or NOT_STATED] += files
        consents[rights.consent or NOT_STATED] += files
    return f"licences {_counted(licenses)}; consent {_counted(consents)}; refused {refused}"


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = len(ordered) - SHOWN
    shown = ", ".join(f"{name} {n}" for name, n in ordered[:SHOWN])
    return shown + (f" and {more} more" if more > 0 else "")
