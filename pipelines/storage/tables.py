"""Parquet tables: whole, a group of rows at a time, and in an object store with few requests."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage.fetching import fetched_bytes
from pipelines.storage.s3_requests import names_below, proven_bytes

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are kept together in a table: a question about a few of them reads one group, and a
# writer holds one group in memory, also where every row carries an embedding.
ROW_GROUP_ROWS = 65_536
#: Up to here a table comes whole, with one request and proof that it came right; beyond, only what
#: is asked of it does, with a request for each run of columns.
WHOLE_UP_TO_BYTES = 16 << 20


def groups_of(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The groups of rows of a local file, in order; an empty table where it has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = pq.ParquetFile(path)
    for number in range(groups.num_row_groups):
        yield groups.read_row_group(number, columns)
    if not groups.num_row_groups:
        empty = pa.Table.from_batches([], schema=groups.schema_arrow)
        yield empty if columns is None else empty.select(columns)


def write_groups(path: Path, groups: Iterable[pa.Table]) -> None:
    """A local file from its groups of rows, one of them in memory at a time; at least one."""
    import pyarrow.parquet as pq

    remaining = iter(groups)
    first = next(remaining)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for group in itertools.chain([first], remaining):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)


def read_table(
    filesystem: Any, path: str, columns: list[str] | None, filters: Any, seen: set[str]
) -> pa.Table:
    """A file, or the parts of one below a folder of that name. Raises as pyarrow does; and
    FileNotFoundError, WrongBytes and what the store's client raises.

    pyarrow's own way over a filesystem takes a store that fails for one that has no such file.
    """
    import pyarrow as pa

    try:
        return read_file(filesystem, path, columns, filters, seen)
    except FileNotFoundError:
        parts = sorted(n for n in names_below(filesystem, path) if n.endswith(".parquet"))
        if not parts:
            raise
    return pa.concat_tables(read_file(filesystem, part, columns, filters, seen) for part in parts)


def read_file(
    filesystem: Any, path: str, columns: list[str] | None, filters: Any, seen: set[str]
) -> pa.Table:
    """The same of one file. Raises FileNotFoundError where none is, or a folder."""
    import pyarrow.parquet as pq

    data = proven_bytes(filesystem, path, WHOLE_UP_TO_BYTES)
    if data is None:
        said = filesystem.info(path)
        if said["type"] == "directory":
            raise FileNotFoundError(path)
        return _read_file(filesystem, path, said, columns, filters, seen)
    return pq.read_table(io.BytesIO(data), columns=columns, filters=filters)


def _read_file(
    filesystem: Any,
    path: str,
    said: Any,
    columns: list[str] | None,
    filters: Any,
    seen: set[str],
) -> pa.Table:
    import pyarrow.parquet as pq

    if int(said["size"]) > WHOLE_UP_TO_BYTES:
        with filesystem.open(path, "rb") as file:
            return pq.read_table(file, columns=columns, filters=filters)
    data = fetched_bytes(filesystem, path, said, seen)
    return pq.read_table(io.BytesIO(data), columns=columns, filters=filters)
