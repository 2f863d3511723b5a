"""SQL over the tables of finished outputs, where they lie: in a folder or in an object store.

DuckDB reads the columns and row groups that a question needs, so a question about one source of
fifty thousand reads a few per cent of the files, and nothing becomes a Python object before the
answer is small. This module does not import pyarrow: asking must start quickly.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from pipelines.config import RequestError
from pipelines.lineage.table_copies import TableCopies, asked_again
from pipelines.storage import Store

MEMORY_LIMIT = "1GB"

#: What DuckDB raises for files that are not what the query takes them for. Damage that its parquet
#: reader trips over is none of its own kinds, but the plain `Error` (see `_is_about_files`).
FILE_ERRORS = (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException)

Rows = dict[str, list[dict[str, Any]]]  # by the URI of the output that holds them


@dataclass(frozen=True)
class Choice:
    """Whole sources, and single clips of other sources, that a question or a request names."""

    source_ids: frozenset[str] = frozenset()
    clip_ids: frozenset[str] = frozenset()


class Tables:
    """An open DuckDB, in memory. Not for several threads at once."""

    def __init__(self) -> None:
        self._sql = duckdb.connect()
        spill = os.path.join(tempfile.gettempdir(), f"i2vgen-sql-{os.getpid()}")
        self._sql.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        self._sql.execute(f"SET temp_directory = {quoted(spill)}")
        self._protocols: set[str] = set()
        self._path_of: dict[str, str] = {}  # as queries name it: the file
        self._copies = TableCopies()
        self._chosen: Choice | None = None

    def scan(self, places: Sequence[tuple[str, str]]) -> str:
        """A FROM item over (output URI, table) pairs; each a parquet file or a folder of parts.

        Raises RequestError when a table is not there.
        """
        return self._scan([path for place in places for path in self._files(*place)])

    def readable_rows_by_place(
        self, uris: Iterable[str], table: str, columns: str, condition: str, order: str = ""
    ) -> tuple[Rows, dict[str, str]]:
        """`rows_by_place`, and why each of the outputs that could not be read could not: one that
        is damaged must not keep the others from answering."""
        places = list(uris)
        try:
            return self.rows_by_place(places, table, columns, condition, order), {}
        except RequestError:
            found: Rows = {}
            unreadable = {}
            for uri in places:
                try:
                    found |= self.rows_by_place([uri], table, columns, condition, order)
                except RequestError as error:
                    unreadable[uri] = str(error)
            return found, unreadable

    def rows_by_place(
        self, uris: Iterable[str], table: str, columns: str, condition: str, order: str = ""
    ) -> Rows:
        """The rows of the same table in several outputs, by output, from one pass over all of
        them; an output without such rows has no entry. `order` is of a row's place in its list.

        A column that some of the tables lack is null there. Raises as `rows`.
        """
        uri_of = {path: uri for uri in uris for path in self._files(uri, table)}
        if not uri_of:
            return {}
        scan = self._scan(list(uri_of), "filename = true, union_by_name = true")
        ordered = f"ORDER BY {order}" if order else ""
        found: Rows = {}
        names = {without_protocol(path): uri for path, uri in uri_of.items()}
        for row in self.rows(f"SELECT {columns}, filename FROM {scan} WHERE {condition} {ordered}"):
            uri = names[without_protocol(row.pop("filename"))]
            found.setdefault(uri, []).append(row)
        return found

    def _scan(self, paths: Sequence[str], options: str = "filename = false") -> str:
        if not paths:
            raise ValueError("a scan of no table")
        named = [quoted(as_pattern(path)) for path in paths]
        self._path_of |= zip(named, map(self._copies.named, paths), strict=True)
        return f"read_parquet([{', '.join(named)}], {options})"

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """What the query gives, a dict a row. Raises RequestError, naming the file, when one cannot
        be read or has not the columns that are asked for."""
        with self._about_files(query):
            return asked_again(lambda: self._rows(query, parameters), self._may_pass(query))

    def _rows(self, query: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        cursor = self._sql.execute(query, list(parameters))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _may_pass(self, query: str) -> Callable[[duckdb.Error], bool]:
        """Whether an error may be a store's, which answers otherwise a moment later."""
        asks_store = any("://" in name and name in query for name in self._path_of)
        return lambda error: asks_store and _is_about_files(error)

    @contextmanager
    def _about_files(self, query: str) -> Iterator[None]:
        """Turns an error that is the fault of a file into one that names it."""
        try:
            yield
        except duckdb.Error as error:
            if not _is_about_files(error):
                raise
            reason = next((line for line in str(error).splitlines() if line), "no reason given")
            raise RequestError(
                f"{self._blamed(query)}: not readable as this table ({reason}); "
                "restore it, or make it again"
            ) from error

    def columns(self, query: str) -> dict[str, Any]:
        """What the query gives, a NumPy array a column. Raises as `rows`."""
        with self._about_files(query):
            return asked_again(
                lambda: dict(self._sql.execute(query).fetchnumpy()), self._may_pass(query)
            )

    def hold(self, name: str, table: Any) -> str:
        """A FROM item over an Arrow table at hand."""
        self._sql.register(name, table)
        return name

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """A statement that gives no rows. Raises as `rows`."""
        self.rows(statement, parameters)

    def where(self, choice: Choice) -> str:
        """A condition on `source_id` and `clip_id` that only the chosen rows meet.

        The ids become tables to join with: as quick for one id as for a hundred thousand. It
        holds until the next call.
        """
        if choice != self._chosen:
            self._put("chosen_sources", choice.source_ids)
            self._put("chosen_clips", choice.clip_ids)
            self._chosen = choice
        conditions = []
        if choice.source_ids:
            conditions.append("source_id IN (SELECT id FROM chosen_sources)")
        if choice.clip_ids:
            conditions.append("clip_id IN (SELECT id FROM chosen_clips)")
        return f"({' OR '.join(conditions)})" if conditions else "false"

    def _blamed(self, query: str) -> str:
        """The first of the query's files that cannot be read by itself; else all of them."""
        files = [name for name in self._path_of if name in query]
        for name in files:
            try:
                self._sql.execute(f"SELECT bit_xor(hash(t)) FROM read_parquet([{name}]) AS t")
            except duckdb.Error:
                return self._path_of[name]
        return ", ".join(self._path_of[name] for name in files) or "a table"

    def _put(self, name: str, ids: Iterable[str]) -> None:
        self.run(
            f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT unnest(?::VARCHAR[]) AS id",
            [sorted(ids)],
        )

    def _files(self, uri: str, table: str) -> list[str]:
        store = Store(uri)
        path = store.path(table)
        if store.is_local:
            if os.path.isfile(path):
                return [path]
            names = os.listdir(path) if os.path.isdir(path) else []
            parts = [f"{path}/{name}" for name in sorted(names) if is_part(name)]
        else:
            protocol = uri.partition("://")[0]
            if protocol not in self._protocols:
                self._sql.register_filesystem(store.filesystem())
                self._protocols.add(protocol)
            names = [name for name in store.list_files(table) if is_part(name)]
            parts = [self._copies.at_hand(store, name) for name in names]
        if not parts:
            raise RequestError(f"{path}: not found; restore it, or make it again")
        return parts


def _is_about_files(error: duckdb.Error) -> bool:
    return type(error) is duckdb.Error or isinstance(error, FILE_ERRORS)


def without_protocol(path: str) -> str:
    """A file's name however a filesystem spells it: `memory://a` and `memory:///a` are one."""
    return path.rpartition("://")[2].lstrip("/")


def is_part(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.endswith(".parquet") and not base.startswith(".")


def as_pattern(path: str) -> str:
    """A path that DuckDB, which takes every path for a pattern, finds as it is."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
