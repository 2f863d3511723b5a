"""The dataset on disk as a value: what names it, what is in it, whether it is whole.

`dataset.json` is written last, so a folder without it is not a dataset yet (design.md,
"Dataset"). The digest says *what was learned from*: equal for equal kept clips, whatever order,
machine count or interruptions produced them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError
from pipelines.lineage.sorted_lines import SortedLines
from pipelines.lineage.tombstones import TOMBSTONES_TABLE
from pipelines.records import SCHEMA_VERSION
from pipelines.storage import Store
from pipelines.storage.seal import hashes_of, unsealed

DATASET_FILE = "dataset.json"
SOURCES_TABLE = "sources.parquet"
CLIPS_TABLE = "clips.parquet"
SHARDS_TABLE = "shards.parquet"
SHARDS_FOLDER = "shards"
DIGEST_HEX = 32
NOT_STATED = "not stated"

Tables: TypeAlias = "pa.Table | Iterable[pa.Table]"


def dataset_digest(rows: Iterable[tuple[str, str, str | None]], schema_version: int) -> str:
    """32 hex digits naming a set of kept clips: (clip_id, content_sha256, caption) each.

    The order of `rows` does not matter: their lines are sorted, on disk where they are many. Every
    field is written with its length before it, so no two different sets share an encoding, whatever
    characters a caption holds; a caption that was never made (None) differs from an empty one.
    Raises ValueError on a clip without an id or a content hash: its bytes were never fixed, so
    nothing can name them.
    """
    lines = SortedLines()
    lines.add(_line_of_clip(*row) for row in rows)
    digest = hashlib.sha256(b"i2vgen-ray dataset %d\n" % schema_version)
    for line in lines.in_order():
        digest.update(line)
    return digest.hexdigest()[:DIGEST_HEX]


def _line_of_clip(clip_id: str, content_sha256: str, caption: str | None) -> bytes:
    if not clip_id or not content_sha256:
        raise ValueError(f"kept clip {clip_id!r} has no content_sha256")
    return _field(clip_id) + _field(content_sha256) + _field(caption) + b"\n"


def _field(text: str | None) -> bytes:
    if text is None:
        return b"~,"
    data = text.encode("utf-8", "surrogatepass")
    return b"%d:%b," % (len(data), data)


def digest_of_clips(clips: Tables, schema_version: int = SCHEMA_VERSION) -> str:
    """`dataset_digest` of the kept rows of a clips table, or of its groups of rows."""
    return dataset_digest((row for table in _each(clips) for row in _named(table)), schema_version)


def _named(clips: pa.Table) -> Iterator[tuple[str, str, str | None]]:
    kept = clips.filter(pc.equal(clips["verdict"], "kept"))
    columns = (kept[name].to_pylist() for name in ("clip_id", "content_sha256", "caption"))
    return zip(*columns, strict=True)


def count_clips(clips: Tables) -> dict[str, Any]:
    """Counts per verdict; per reason of the dropped; per tier, licence and consent of the kept
    (for `dataset.json`). Of a table or of its groups of rows."""
    verdicts: Counter[str] = Counter()
    reasons: Counter[str | None] = Counter()
    tiers: Counter[str] = Counter()
    licenses: Counter[str] = Counter()
    consent: Counter[str] = Counter()
    for table in _each(clips):
        verdicts.update(table["verdict"].to_pylist())
        kept = table.filter(pc.equal(table["verdict"], "kept"))
        reasons.update(table.filter(pc.equal(table["verdict"], "dropped"))["reason"].to_pylist())
        tiers.update(tier for row in kept["tiers"].to_pylist() for tier in row or ())
        licenses.update(value or NOT_STATED for value in kept["license"].to_pylist())
        consent.update(value or NOT_STATED for value in kept["consent"].to_pylist())
    return {
        "clips": verdicts.total(),
        "kept": verdicts["kept"],
        "dropped": verdicts["dropped"],
        "reasons": dict(sorted(reasons.items(), key=str)),
        "tiers": dict(sorted(tiers.items())),
        "licenses": dict(sorted(licenses.items())),
        "consent": dict(sorted(consent.items())),
    }


def count_sources(sources: Tables) -> dict[str, Any]:
    """Files per reason of the failed (for `dataset.json`). Of a table or of its groups of rows."""
    count = 0
    reasons: Counter[str | None] = Counter()
    for table in _each(sources):
        count += table.num_rows
        failed = table.filter(pc.not_equal(table["status"], "ok"))
        reasons.update(failed["reason"].to_pylist())
    return {
        "sources": count,
        "sources_failed": reasons.total(),
        "source_reasons": dict(sorted(reasons.items(), key=str)),
    }


def _each(tables: Tables) -> Iterable[pa.Table]:
    return (tables,) if isinstance(tables, pa.Table) else tables


def hashes_of_tables(store: Store) -> dict[str, str]:
    """The sha256 of every table, or of each of its parts (for `dataset.json`)."""
    return hashes_of(store, (SOURCES_TABLE, CLIPS_TABLE, SHARDS_TABLE, TOMBSTONES_TABLE))


@dataclass(frozen=True)
class Dataset:
    """A complete dataset, opened for reading. Tables are read when asked for."""

    store: Store
    manifest: dict[str, Any]

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def parent_digest(self) -> str | None:
        return self.manifest.get("parent_digest")

    @property
    def schema_version(self) -> int:
        return int(self.manifest["schema_version"])

    @cached_property
    def sources(self) -> pa.Table:
        return self.store.read_table(SOURCES_TABLE)

    @cached_property
    def clips(self) -> pa.Table:
        return self.store.read_table(CLIPS_TABLE)

    @cached_property
    def shards(self) -> pa.Table:
        return self.store.read_table(SHARDS_TABLE)

    @cached_property
    def tombstones(self) -> pa.Table | None:
        """What was taken down from earlier versions (TOMBSTONE_SCHEMA); None if nothing was."""
        if not self.store.exists(TOMBSTONES_TABLE):
            return None
        return self.store.read_table(TOMBSTONES_TABLE)


def read_dataset(uri: str) -> Dataset:
    """Opens a dataset. Raises RequestError when it is missing, incomplete or of another schema."""
    store = Store.open(uri.removesuffix(f"/{DATASET_FILE}"))
    if not store.exists(DATASET_FILE):
        state = "not found"
        if store.exists(""):
            state = "no dataset.json there: not a dataset, or its curation did not finish"
        raise RequestError(f"{uri}: {state}; give the folder of a dataset, or make one (curate.py)")
    try:
        manifest = unsealed(store.read_bytes(DATASET_FILE))
        version, digest = manifest["schema_version"], manifest["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{uri}/{DATASET_FILE}: not a dataset manifest ({error!r})") from error
    if version != SCHEMA_VERSION or not isinstance(digest, str):
        raise RequestError(
            f"{uri}: schema version {version}, this code reads {SCHEMA_VERSION}; "
            "use the version of i2vgen-ray that wrote it, or curate again"
        )
    for table in (SOURCES_TABLE, CLIPS_TABLE, SHARDS_TABLE):
        if not store.exists(table):
            raise RequestError(f"{uri}: {table} is missing; restore it or curate again")
    return Dataset(store, manifest)
