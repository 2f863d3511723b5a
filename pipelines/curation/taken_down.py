"""What was taken down before, wherever that was written down: none of it may come back.

Asked are: the datasets and tables that the request names, its parent, every dataset beside the new
one and beside those that the work folder knows, what earlier curations left in the work folder, and
the takedowns that tracking knows. Tombstones name contents, so those of other footage do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

import pyarrow as pa

from pipelines.config import RequestError
from pipelines.curation.commit_log import WORK_FOLDER, groups_if_whole
from pipelines.curation.config import CurateConfig
from pipelines.job import JobEnded
from pipelines.lineage.tombstones import (
    TOMBSTONE_SCHEMA,
    TOMBSTONES_TABLE,
    Tombstones,
    counts_of,
    tombstones_of,
)
from pipelines.storage import Store, absolute_uri

#: Where the work folder keeps what was in force, should the datasets that said so be deleted.
REMEMBERED_FOLDER = "tombstones"
_PLACES_FOLDER = "places"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TakenDown:
    """Rows of TOMBSTONE_SCHEMA, one for each source or clip, sorted; and what could not be asked.

    `named`: (source_id, clip_id) of rows that the request itself brought: its parent's, or a
    table's that it names. They stay with the dataset also where the footage lacks their source.
    """

    rows: tuple[Row, ...] = ()
    named: frozenset[tuple[str, str | None]] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def in_force(self) -> Tombstones:
        return tombstones_of(self.rows)

    def of_footage(self, source_ids: Iterable[str]) -> TakenDown:
        """Only what concerns these sources, or was named."""
        concerned = {row["source_id"] for row in self.rows}
        here = {source_id for source_id in source_ids if source_id in concerned}
        rows = (r for r in self.rows if r["source_id"] in here or _key(r) in self.named)
        return TakenDown(tuple(rows), self.named)

    def table(self) -> pa.Table:
        return pa.Table.from_pylist([dict(r) for r in self.rows], schema=TOMBSTONE_SCHEMA)

    def counts(self) -> dict[str, Any]:
        """For `dataset.json`."""
        return counts_of(self.rows)


@dataclass
class _Asked:
    """Everything that was found so far, in whatever order it was found."""

    rows: dict[tuple[str, str | None], Row] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            known = self.rows.setdefault(_key(row), row)
            if _fullness(row) < _fullness(known):
                self.rows[_key(row)] = row

    def try_place(self, uri: str, must_exist: bool) -> None:
        """Adds what a dataset or table says. One that is gone, or damaged, is a warning."""
        try:
            rows = _rows_at(uri)
        except (OSError, RequestError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:120]
            self.warnings.append(f"takedowns: WARNING: {uri} cannot be read ({reason})")
            return
        if rows is None and must_exist:
            self.warnings.append(
                f"takedowns: WARNING: {uri} is gone or unfinished: what it takes down is not known"
            )
        self.add(rows or ())


def taken_down_before(
    config: CurateConfig, store: Store, takedowns: Sequence[str] | None = None
) -> TakenDown:
    """All that any place says. Raises RequestError for a named place that cannot be read.

    `takedowns`: datasets that takedown runs wrote; None: as tracking says.
    """
    asked = _Asked()
    for uri in config.tombstones:
        asked.add(_rows_named("--tombstones", uri) or _no_tombstones(uri))
    if config.parent:
        asked.add(_rows_named("--parent", config.parent) or ())
    named = frozenset(asked.rows)
    if takedowns is None:
        takedowns = list(_tracked(config, asked.warnings))
    for uri in sorted(set(takedowns) - {store.uri}):
        asked.try_place(uri, must_exist=True)
    for uri in _around(config, store):
        asked.try_place(uri, must_exist=False)
    for work in _work_folders(config, store):
        for name in work.list_files(REMEMBERED_FOLDER):
            asked.try_place(work.path(name), must_exist=False)
    rows = sorted(asked.rows.values(), key=lambda r: (r["source_id"], r["clip_id"] or ""))
    return TakenDown(tuple(rows), named, tuple(asked.warnings))


class TakenDownMeanwhile(JobEnded):
    """Something of this footage was taken down while the job ran."""


def check_nothing_new(
    config: CurateConfig, store: Store, known: TakenDown, ids: Iterable[str]
) -> None:
    """Long films take days. Raises TakenDownMeanwhile, so that the dataset is not published with
    what went since: the same command, given again, has little left to do."""
    found = taken_down_before(config, store).of_footage(ids)
    new = {_key(row) for row in found.rows} - {_key(row) for row in known.rows}
    if new:
        raise TakenDownMeanwhile(
            f"{store.uri}: {len(new)} sources or clips were taken down while this ran; "
            "give the same command again, what was done is kept"
        )


def remember(shared: Store, taken: TakenDown) -> None:
    """Leaves in the work folder what was in force, under the name of what it says."""
    if taken.rows:
        name = f"{REMEMBERED_FOLDER}/{taken.counts()['digest']}.parquet"
        if not shared.exists(name):
            shared.write_table(name, taken.table())


def _tracked(config: CurateConfig, warnings: list[str]) -> Iterator[str]:
    from pipelines.lineage.tracked.places import takedowns_of

    try:
        yield from takedowns_of(config.tracking)
    except (RequestError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        warnings.append(f"takedowns: WARNING: tracking cannot be asked ({reason})")


def _around(config: CurateConfig, store: Store) -> list[str]:
    """Datasets beside the new one, and beside every dataset that shares its work folder."""
    folders = {_folder_of(store.uri)}
    for work in _work_folders(config, store):
        for name in work.list_files(_PLACES_FOLDER):
            for table in islice(groups_if_whole(work, name, ["dataset"]), 1):  # all rows say one
                folders |= {_folder_of(str(uri)) for uri in table["dataset"].unique().to_pylist()}
    found = {uri for folder in folders if folder for uri in _folders_in(folder)}
    return sorted(found - {store.uri})


def _work_folders(config: CurateConfig, store: Store) -> list[Store]:
    """Where this run may share results (prepared.open_work_folder chooses), as far as it exists."""
    if config.work:
        places = [absolute_uri(config.work)]
    else:
        places = [f"{_folder_of(store.uri)}/{WORK_FOLDER}", store.path(WORK_FOLDER)]
    return [Store(uri) for uri in places]


def _folder_of(uri: str) -> str:
    """Empty for the root of a disk or of an object store."""
    folder = uri.rpartition("/")[0]
    return "" if folder.endswith(("/", ":")) else folder


def _folders_in(uri: str) -> list[str]:
    return [f"{uri}/{name}" for name in Store(uri).list_folders() if name != WORK_FOLDER]


def _rows_named(flag: str, uri: str) -> list[Row] | None:
    try:
        return _rows_at(absolute_uri(uri))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise RequestError(f"{flag} {uri}: its tombstones cannot be read ({reason})") from error


def _no_tombstones(uri: str) -> NoReturn:
    raise RequestError(
        f"--tombstones {uri}: no tombstones there; give a dataset that jobs/takedown.py wrote, "
        f"or its {TOMBSTONES_TABLE}"
    )


def _rows_at(uri: str) -> list[Row] | None:
    """Of a dataset, or of a table; None where there is none."""
    folder, name = uri.rpartition("/")[::2] if uri.endswith(".parquet") else (uri, TOMBSTONES_TABLE)
    store = Store.open(folder)
    if not store.exists(name):
        return None
    table = store.read_table(name)
    kinds = {field.name: field.type for field in table.schema}
    if any(kinds.get(name) != pa.string() for name in ("source_id", "clip_id")):
        raise ValueError("it has no columns source_id and clip_id of text")
    return [_whole_row(row) for row in table.to_pylist() if row["source_id"]]


def _whole_row(row: Row) -> Row:
    """With every column of the schema: older tables say less."""
    found = {name: row.get(name) for name in TOMBSTONE_SCHEMA.names}
    return {**found, "from_digest": str(found["from_digest"] or "")}


def _key(row: Row) -> tuple[str, str | None]:
    return row["source_id"], row["clip_id"]


def _fullness(row: Row) -> tuple[bool, str]:
    """Of two rows about one clip the one with a span counts, then the first dataset's by name:
    the same whatever order places were asked in."""
    return row["start_frame"] is None, row["from_digest"]
