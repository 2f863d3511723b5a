"""Pictures that move on a trace page: clips as they lie in their shards, and generated videos.

A page that a person sends by mail stays small: at most `CLIPS` clips and `PAGE_BYTES` in all.
What does not fit is left out, and counted.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage.catalog import Catalog
from pipelines.lineage.page.graph import sources_in
from pipelines.lineage.tables import Choice
from pipelines.shard_reader import MEDIA_ENDINGS
from pipelines.storage import Store

CLIPS_TABLE = "clips.parquet"
CLIPS, PAGE_BYTES = 12, 24 << 20
READ_AHEAD_BYTES = 16 << 10
MIME = {"mp4": "video/mp4", "jpg": "image/jpeg"}
COLUMNS = "clip_id, source_id, kind, start_s, end_s, caption, shard, key"
ROWS_READ = 10_000  # of which at most CLIPS are shown


Rows = list[tuple[str, dict[str, Any]]]  # (the dataset's URI, a row of its clips)


@dataclass(frozen=True)
class Player:
    """One clip or video: what it is called, and its bytes as a data URI."""

    title: str
    detail: str
    mime: str
    data: str
    clip_id: str = ""

    @property
    def moves(self) -> bool:
        return self.mime.startswith("video/")


@dataclass(frozen=True)
class Media:
    """`left_out`: what was not embedded and why, a sentence each."""

    players: tuple[Player, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass
class _Room:
    """What still fits on the page."""

    bytes_left: int
    clips_left: int = CLIPS
    players: list[Player] = field(default_factory=list)
    too_large: int = 0
    unreadable: int = 0

    def take(self, data: bytes | None, title: str, detail: str, mime: str, clip_id: str) -> None:
        if data is None:
            self.unreadable += 1
        elif len(data) > self.bytes_left:
            self.too_large += 1
        else:
            self.bytes_left -= len(data)
            self.clips_left -= 1
            text = base64.b64encode(data).decode("ascii")
            uri = f"data:{mime};base64,{text}"
            self.players.append(Player(title, detail, mime, uri, clip_id))


def media_of(catalog: Catalog, report: Mapping[str, Any], page_bytes: int = PAGE_BYTES) -> Media:
    """The generated video first, then clips that the report is about; at most `page_bytes`."""
    room = _Room(bytes_left=page_bytes)
    if "made_with" in report:
        _take_video(room, str(report["uri"]))
    rows, total = _wanted(catalog, report)
    for dataset_uri, row in rows:
        if room.clips_left <= 0:
            break
        _take_clip(room, dataset_uri, row)
    return Media(tuple(room.players), tuple(_left_out(room, total)))


def _left_out(room: _Room, wanted: int) -> Iterable[str]:
    shown = sum(bool(player.clip_id) for player in room.players)
    if shown and wanted > shown:
        yield f"{shown:,} of {wanted:,} clips are shown, to keep the page small"
    if room.too_large:
        yield f"{room.too_large:,} did not fit"
    if room.unreadable:
        yield f"{room.unreadable:,} could not be read from where they should be"


def _take_video(room: _Room, uri: str) -> None:
    folder, _, name = uri.rpartition("/")
    try:
        data: bytes | None = Store.open(folder or ".").read_bytes(name)
    except (OSError, RequestError):
        data = None
    room.take(data, name, "the generated video", MIME["mp4"], "")


def _take_clip(room: _Room, dataset_uri: str, row: Mapping[str, Any]) -> None:
    ending = MEDIA_ENDINGS.get(row["kind"], "mp4")
    data = None
    if row["shard"] and row["key"]:
        data = read_member(Store(dataset_uri), f"shards/{row['shard']}", f"{row['key']}.{ending}")
    span = f"{row['start_s'] or 0:.2f} to {row['end_s'] or 0:.2f} s"
    detail = f"{row['shard']}, {span}" if row["kind"] == "video" else str(row["shard"])
    title = row["caption"] or f"clip {row['clip_id'][:12]}"
    room.take(data, title, detail, MIME[ending], row["clip_id"])


# --- which clips -----------------------------------------------------------------------------


def _wanted(catalog: Catalog, report: Mapping[str, Any]) -> tuple[Rows, int]:
    """Kept clips that the report is about, most telling first, each once; and how many there are
    (of a whole dataset only some are read)."""
    if "parent_digest" in report:
        return _some(catalog, report)
    if "before" in report:
        rows = [*_named(catalog, report["before"], report["removed"])]
        rows += _named(catalog, report["after"], report["added"])
    elif "stages" in report:
        rows = [pair for stage in report["stages"] for pair in _seen(catalog, stage)]
    else:
        rows = _asked(catalog, report)
    once: dict[str, tuple[str, dict[str, Any]]] = {}
    for uri, row in rows:
        once.setdefault(row["clip_id"], (uri, row))
    return list(once.values()), len(once)


def _some(catalog: Catalog, report: Mapping[str, Any]) -> tuple[Rows, int]:
    """Ids are hashes, so the first of them are from all over the dataset. Twice as many as are
    shown: some may not be readable."""
    return _kept(catalog, report["uri"], None, limit=2 * CLIPS), int(report["kept"])


def _asked(catalog: Catalog, report: Mapping[str, Any]) -> Rows:
    reports = [report] if "clip_id" in report else sources_in(report)
    rows: Rows = []
    for one in reports:
        choice = Choice(clip_ids=frozenset([one["clip_id"]])) if "clip_id" in one else None
        choice = choice or Choice(source_ids=frozenset([one["source_id"]]))
        for dataset in one["datasets"]:
            rows += _kept(catalog, dataset["uri"], choice)
    return rows


def _named(catalog: Catalog, digest: str, rows: Sequence[Mapping[str, str]]) -> Rows:
    found = next((e for e in catalog.of("dataset") if e.digest == digest), None)
    choice = Choice(clip_ids=frozenset(row["clip_id"] for row in rows))
    return _kept(catalog, found.uri, choice, limit=CLIPS) if found and rows else []


def _seen(catalog: Catalog, stage: Mapping[str, Any]) -> Rows:
    """A clip of each source that a checkpoint saw, the most seen source first; then second ones."""
    spans = {
        source["source_id"]: {tuple(span) for span in source["spans_s"] or []}
        for source in stage["sources"][:CLIPS]
    }
    if not stage["dataset_found"] or not spans:
        return []
    by_source: dict[str, Rows] = {source: [] for source in spans}
    for uri, row in _kept(catalog, stage["dataset_found"], Choice(source_ids=frozenset(spans))):
        if (row["start_s"], row["end_s"]) in spans[row["source_id"]]:
            by_source[row["source_id"]].append((uri, row))
    rounds = max(len(rows) for rows in by_source.values())
    return [rows[n] for n in range(rounds) for rows in by_source.values() if n < len(rows)]


def _kept(catalog: Catalog, uri: str, choice: Choice | None, limit: int = ROWS_READ) -> Rows:
    """Kept clips of the dataset at `uri`, in the order of the films; without a choice, by id."""
    tables = catalog.tables
    scan = tables.scan([(uri, CLIPS_TABLE)])
    chosen = tables.where(choice) if choice else "true"
    order = "source_id, start_s, clip_id" if choice else "clip_id"
    query = f"SELECT {COLUMNS} FROM {scan} WHERE verdict = 'kept' AND {chosen}"
    found = tables.rows(f"{query} ORDER BY {order} LIMIT {limit}")
    return [(uri, row) for row in found]


# --- out of a shard --------------------------------------------------------------------------


class _Ranges(io.RawIOBase):
    """A file of a store that reads what is asked for and nothing else of it."""

    def __init__(self, store: Store, relative: str) -> None:
        super().__init__()
        self.store, self.relative, self.position = store, relative, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise OSError("the end of this file is not known")
        self.position = offset + (self.position if whence == io.SEEK_CUR else 0)
        return self.position

    def readinto(self, buffer: Any) -> int:
        data = self.store.read_range(self.relative, self.position, len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def read_member(store: Store, relative: str, name: str) -> bytes | None:
    """A member of a tar, found by reading headers; None where it or the tar cannot be read."""
    try:
        with (
            io.BufferedReader(_Ranges(store, relative), READ_AHEAD_BYTES) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for member in tar:
                if member.name == name and member.isfile() and member.size <= PAGE_BYTES:
                    found = tar.extractfile(member)
                    return found.read() if found else None
    except (OSError, tarfile.TarError):
        return None
    return None
