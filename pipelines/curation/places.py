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
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import config_hash
from pipelines.curation.commit_log import read_if_whole
from pipelines.curation.committed import CUTS_SCHEMA
from pipelines.curation.work import Row, Work
from pipelines.lineage.manifest import DATASET_FILE
from pipelines.storage import Store, sha256_of_bytes

PLACES_FOLDER = "places"
ROWS_AT_ONCE = 16_384

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


def find_places(work: Work, wanted: Collection[str]) -> dict[str, Row]:
    """A place for each of the wanted clip ids that a complete dataset holds."""
    ids = pa.array(sorted(wanted), pa.string())
    found: dict[str, Row] = {}
    for name in work.shared.list_files(_folder(work)):
        table = read_if_whole(work.shared, name)
        if table is None or not table.schema.equals(PLACES_SCHEMA):
            continue
        for row in table.filter(pc.is_in(table["clip_id"], ids)).to_pylist():
            found.setdefault(row["clip_id"], row)
    usable = {uri: _is_complete(work, uri) for uri in {row["dataset"] for row in found.values()}}
    return {clip_id: row for clip_id, row in found.items() if usable[row["dataset"]]}


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
