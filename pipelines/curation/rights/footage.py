"""The footage under its rights: the table laid over every file, copies bound by the strictest,
what is refused or taken down marked before anything of it is watched."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipelines.curation.ingest import Footage, Found
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
) -> list[tuple[Found, Source]]:
    """Every file with what the table says of it, above what the file's surroundings say."""
    return [(found, _under_table(source, found, table, policy)) for found, source in identified]


def _under_table(source: Source, found: Found, table: RightsTable, policy: LimitsConfig) -> Source:
    told = [row.rights for row in table.rows_for(found.uri, source.source_id)]
    rights = merged([*told, rights_of(source)], policy)
    return dataclasses.replace(source, license=rights.license, consent=rights.consent)


def admitted(
    footage: Iterable[Footage], policy: LimitsConfig, tombstones: Tombstones
) -> list[Footage]:
    """The same footage, what must not be watched failed with its reason."""
    return [dataclasses.replace(f, source=_admitted(f.source, policy, tombstones)) for f in footage]


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


def rights_line(footage: Sequence[Footage]) -> str:
    """What is stated of the films and stills, in one line; empty where nothing is."""
    media = [f.source for f in footage if f.source.status == "ok" or f.source.reason in REFUSED]
    refused = Counter(s.reason for s in media if s.status != "ok")
    if not refused and not any(s.license or s.consent for s in media):
        return ""
    line = rights_in_words([rights_of(s) for s in media], refused["licence_refused"])
    down = refused["taken_down"]
    return f"rights: {line}" + (f"; taken down before {down}" if down else "")


def rights_in_words(all_stated: Sequence[Rights], refused: int) -> str:
    """`licences CC0-1.0 12, not stated 3; consent yes 4, not stated 11; refused 2`."""
    licenses = Counter(r.license or NOT_STATED for r in all_stated)
    consents = Counter(r.consent or NOT_STATED for r in all_stated)
    return f"licences {_counted(licenses)}; consent {_counted(consents)}; refused {refused}"


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = len(ordered) - SHOWN
    shown = ", ".join(f"{name} {n}" for name, n in ordered[:SHOWN])
    return shown + (f" and {more} more" if more > 0 else "")
