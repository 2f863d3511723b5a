"""Where finished datasets hold their cuts, so that the same cut is copied and not made again.

Clip bytes are not kept twice: once they are in a shard, only their place is remembered, one file
for each dataset and way of cutting, in the work folder:

    WORK/places/<key of cuts>/<hash of the dataset's URI>.parquet

A place is a promise that is checked every time: the bytes are taken only if they have the sha256
that was written down. A dataset that was moved, deleted or taken down in part costs cuts, never
a wrong or a missing clip.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import config_hash
from pipelines.curation.clip_ids import order_keys, packed_ids, sortable
from pipelines.curation.commit_log import groups_if_whole
from pipelines.curation.committed import CUTS_SCHEMA
from pipelines.curation.mapped import PREFIX, SMALL_BYTES, full, mapped, where_it_is_full
from pipelines.curation.packed import pack, unpack
from pipelines.curation.work import Row, Work
from pipelines.lineage.manifest import DATASET_FILE
from pipelines.storage import Store, sha256_of_bytes

PLACES_FOLDER = "places"
ROWS_AT_ONCE = 16_384
NOWHERE = -1
_LENGTH_BYTES = 4

#: All that is known of the cut, and where its bytes begin in which shard of which dataset.
PLACES_SCHEMA = pa.schema(
    [*CUTS_SCHEMA, ("dataset", pa.string()), ("shard", pa.string()), ("offset", pa.int64())]
)


def remember_places(work: Work, rows: Iterable[Row]) -> None:
    """Writes down where each kept clip lies (rows of PLACES_SCHEMA but for `dataset`, in order of
    their ids), replacing what was known of this dataset."""
    remaining = iter(rows)

    def groups() -> Iterator[pa.Table]:
        while True:
            some = list(itertools.islice(remaining, ROWS_AT_ONCE))
            told = [{**row, "dataset": work.dataset} for row in some]
            yield pa.Table.from_pylist(told, schema=PLACES_SCHEMA)
            if len(some) < ROWS_AT_ONCE:
                return

    name = f"{_folder(work)}/{config_hash(work.dataset)}.parquet"
    work.shared.write_table_groups(name, groups())


class FoundPlaces(Mapping[int, Row]):
    """A place of each clip that has one, by the clip's number; in a temporary file where they are
    many."""

    def __init__(self, wanted: np.ndarray) -> None:
        """`wanted`: numbers of clips, rising."""
        self._wanted = wanted
        self._start_N = full(len(wanted), NOWHERE, np.int64)
        self._file = tempfile.SpooledTemporaryFile(SMALL_BYTES, prefix=PREFIX)  # noqa: SIM115
        self._len = 0

    def add(self, index: int, row: Row) -> None:
        """Of the wanted clip at `index`, if none is known yet."""
        if self._start_N[index] == NOWHERE:
            self._file.seek(0, os.SEEK_END)
            self._start_N[index] = self._file.tell()
            data = pack(row)
            with where_it_is_full():
                self._file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
            self._len += 1

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[int]:
        return map(int, self._wanted[self._start_N != NOWHERE])

    def __getitem__(self, clip: int) -> Row:
        index = int(np.searchsorted(self._wanted, clip))
        is_wanted = index < len(self._wanted) and self._wanted[index] == clip
        if not is_wanted or self._start_N[index] == NOWHERE:
            raise KeyError(clip)
        self._file.seek(int(self._start_N[index]))
        size_bytes = int.from_bytes(self._file.read(_LENGTH_BYTES), "big")
        return dict(unpack(self._file.read(size_bytes)))


def find_places(work: Work, ids_NB: np.ndarray, wanted: np.ndarray) -> FoundPlaces:
    """Where complete datasets hold the wanted ones of the clips with these ids."""
    found = FoundPlaces(wanted)
    names = work.shared.list_files(_folder(work))
    if not names or not len(wanted):
        return found
    order = mapped(np.lexsort(order_keys(ids_NB, wanted)))
    ids_W = mapped(sortable(ids_NB[wanted[order]]))
    is_usable = lru_cache(maxsize=None)(partial(_is_complete, work))
    for table in chain.from_iterable(groups_if_whole(work.shared, name) for name in names):
        if not table.schema.equals(PLACES_SCHEMA):
            continue
        table = table.filter(pc.match_substring_regex(table["clip_id"], "^[0-9a-f]{32}$"))
        known = sortable(packed_ids(table["clip_id"].to_pylist()))
        at = np.minimum(np.searchsorted(ids_W, known), len(ids_W) - 1)
        (hits,) = np.nonzero(ids_W[at] == known)
        for index, row in zip(order[at[hits]], table.take(hits).to_pylist(), strict=True):
            if is_usable(row["dataset"]):
                found.add(int(index), row)
    return found


def bytes_at(place: Mapping[str, Any]) -> bytes | None:
    """The cut, if it still lies there unchanged."""
    path = f"shards/{place['shard']}"
    try:
        data = Store(place["dataset"]).read_range(path, place["offset"], place["size_bytes"])
    except OSError:
        return None
    return data if sha256_of_bytes(data) == place["sha256"] else None


def _folder(work: Work) -> str:
    return f"{PLACES_FOLDER}/{work.keys['cuts']}"


def _is_complete(work: Work, uri: str) -> bool:
    """Not this dataset itself: its shards are about to be written."""
    return uri != work.dataset and Store(uri).exists(DATASET_FILE)
