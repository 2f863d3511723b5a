"""What exists: every dataset, latents folder, checkpoint and generated video that can be found.

Things are found by the file that names them (`dataset.json`, `latents.json`, `checkpoint.json`,
`NAME.json` beside a generated `NAME.mp4`), never by a folder's name, and referred to by digest:
a copy elsewhere is the same thing.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage.tables import Tables
from pipelines.storage import Store, absolute_uri, is_local

logger = logging.getLogger(__name__)

NAMING_FILES = {
    "dataset.json": "dataset",
    "latents.json": "latents",
    "checkpoint.json": "checkpoint",
}
VIDEO_ENDING = ".mp4"
DIGEST_PREFIX = re.compile(r"[0-9a-f]{8,64}")
SIBLING_DEPTH = 2
SKIPPED_FOLDERS = {"_work", "_ray", "shards", "packs", "unet", "ema", ".git", ".venv", "logs"}
REFERENCES = ("dataset", "latents", "base")  # of latents and checkpoints, {"uri", "digest"} each
LINEAGE_TABLE = "lineage.parquet"
INDEX_TABLE = "index.parquet"


@dataclass(frozen=True)
class Entry:
    """One finished output. `header` is its naming file; `kind` a value of NAMING_FILES, or
    "video"."""

    kind: str
    uri: str
    header: dict[str, Any]

    @property
    def digest(self) -> str:
        """What it is, wherever it lies: of a video, the sha256 of its file as it was written."""
        if self.kind == "video":
            return str((self.header.get("video") or {}).get("sha256", ""))
        return str(self.header.get("digest", ""))

    @property
    def folder(self) -> str:
        return self.uri.rpartition("/")[0]

    @property
    def step(self) -> int:
        return int(self.header.get("step", 0))


@dataclass(frozen=True)
class Catalog:
    """Entries sorted by kind, folder and step; each place once."""

    entries: tuple[Entry, ...]

    @cached_property
    def tables(self) -> Tables:
        """SQL over the entries' tables."""
        return Tables()

    @cached_property
    def _same(self) -> dict[tuple[str, str], list[Entry]]:
        """Entries by what they are: (kind, digest)."""
        same: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            same[entry.kind, entry.digest].append(entry)
        return dict(same)

    def of(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]

    def at(self, kind: str, uri: str) -> Entry | None:
        wanted = absolute_uri(uri)
        return next((e for e in self.of(kind) if e.uri == wanted), None)

    def with_digest(self, kind: str, prefix: str) -> Entry | None:
        """The one thing whose digest begins so (8 hexadecimal digits or more), wherever it lies."""
        wanted = prefix.lower()
        if not DIGEST_PREFIX.fullmatch(wanted):
            return None
        found = [e for e in self.of(kind) if e.digest.startswith(wanted)]
        return found[0] if len({e.digest for e in found}) == 1 else None

    def find(self, kind: str, reference: dict[str, Any] | None) -> Entry | None:
        """What {"uri", "digest"} refers to: at that place if it is still that thing, else a copy
        with that digest anywhere."""
        if not reference:
            return None
        same = self._same.get((kind, str(reference.get("digest", ""))), [])
        here = [e for e in same if e.uri == reference.get("uri")]
        return next(iter(here or same), None)

    def parent_of(self, checkpoint: Entry) -> Entry | None:
        """The checkpoint before it in the same training."""
        return self.find("checkpoint", checkpoint.header.get("parent"))

    def history(self, checkpoint: Entry) -> list[Entry]:
        """The checkpoint and those before it in the same training, newest first.

        Each holds what was seen since its parent, so together they hold all of it.
        """
        chain = [checkpoint]
        while parent := self.parent_of(chain[-1]):
            if parent in chain:
                break
            chain.append(parent)
        return chain

    def ancestry(self, checkpoint: Entry) -> list[Entry]:
        """The checkpoint and the base checkpoints it grew from, each on its own history."""
        line = [checkpoint]
        while base := self.find("checkpoint", base_of(line[-1])):
            if base in line:
                break
            line.append(base)
        return line


def name_of(entry: Entry) -> dict[str, str]:
    """How reports refer to an output."""
    return {"uri": entry.uri, "digest": entry.digest}


def checkpoints_of(video: Entry) -> dict[str, dict[str, Any]]:
    """{"base": {"digest"}, "refine": {"digest"}} as the video's own record names them."""
    named = video.header.get("checkpoints")
    if not isinstance(named, dict):
        return {}
    return {role: {"digest": digest} for role, digest in named.items() if isinstance(digest, str)}


def base_of(checkpoint: Entry) -> dict[str, Any] | None:
    return checkpoint.header.get("base")


def build(under: Sequence[str], tracked: Iterable[str] = (), near: Iterable[str] = ()) -> Catalog:
    """Looks below `under` when given; else at the places that tracked runs point to
    (`tracked_places`) and around `near`. Raises RequestError when a folder to look in is not
    there."""
    found: list[Entry] = []
    if under:
        for root in under:
            if not Store.open(root).exists(""):
                raise RequestError(f"--under {root}: no such folder")
            found += entries_below(root)
    else:
        for place in {*_still_there(tracked), *_siblings(near)}:
            found += entries_below(place, SIBLING_DEPTH)
    unique = {(entry.kind, entry.uri): entry for entry in found}
    looked: set[str] = set()
    while places := _referred_places(unique.values()) - looked:
        looked |= places
        for place in places:
            for entry in entries_below(place, SIBLING_DEPTH):
                unique.setdefault((entry.kind, entry.uri), entry)
    order = sorted(unique.values(), key=lambda e: (e.kind, e.folder, e.step, e.uri))
    return Catalog(tuple(order))


def _referred_places(entries: Iterable[Entry]) -> set[str]:
    """Where what was found says that it comes from, if that is still there and not found yet: a
    base checkpoint or a dataset may lie far from what was made with it."""
    known, referred = set(), set()
    for entry in entries:
        known.add(entry.uri)
        for name in REFERENCES:
            reference = entry.header.get(name)
            if isinstance(reference, dict) and isinstance(reference.get("uri"), str):
                referred.add(reference["uri"])
    return _still_there(referred - known)


def entries_below(root: str, depth: int | None = None) -> Iterator[Entry]:
    """Every entry at or below `root`, at most `depth` folders down."""
    for path in _paths_below(absolute_uri(root), depth):
        folder, _, name = path.rpartition("/")
        if name in NAMING_FILES:
            entry = _read_entry(NAMING_FILES[name], folder, path)
        elif name.endswith(VIDEO_ENDING):
            entry = _read_video(path)
        else:
            continue
        if entry:
            yield entry


def _paths_below(root: str, depth: int | None) -> Iterator[str]:
    """Files that may be, or name, an output."""
    if not is_local(root):
        store = Store.open(root)
        there = frozenset(store.list_files() if depth is None else _objects_down_to(store, depth))
        for name in sorted(there):
            if all(map(_is_worth_entering, name.split("/")[:-1])) and _may_be_output(name, there):
                yield store.path(name)
        return
    for folder, folders, files in os.walk(root):
        level = len(Path(folder).relative_to(root).parts)
        keep = depth is None or level < depth
        folders[:] = sorted(f for f in folders if keep and _is_worth_entering(f))
        there = frozenset(files)
        yield from (f"{folder}/{name}" for name in files if _may_be_output(name, there))


def _objects_down_to(store: Store, depth: int, below: str = "") -> Iterator[str]:
    """Names of objects, a request for each folder: what lies deeper may be a bucket full."""
    folders, files = store.list_level(below)
    head = f"{below}/" if below else ""
    yield from (f"{head}{name}" for name in files)
    if depth > 0:
        for folder in filter(_is_worth_entering, folders):
            yield from _objects_down_to(store, depth - 1, f"{head}{folder}")


def _may_be_output(name: str, there: frozenset[str]) -> bool:
    """By the listing alone: footage has films by the thousand, with nothing beside them."""
    if name.endswith(VIDEO_ENDING):
        return _record_of(name) in there
    return name.rpartition("/")[2] in NAMING_FILES


def _record_of(video: str) -> str:
    return f"{video.removesuffix(VIDEO_ENDING)}.json"


def _is_worth_entering(folder: str) -> bool:
    return folder not in SKIPPED_FOLDERS and not folder.startswith(".")


def _read_entry(kind: str, uri: str, path: str) -> Entry | None:
    folder, _, name = path.rpartition("/")
    try:
        header = json.loads(Store(folder).read_bytes(name))
    except (OSError, ValueError) as error:
        logger.warning("%s: not readable, left out (%s)", path, error)
        return None
    return Entry(kind, uri, header) if isinstance(header, dict) else None


def _read_video(path: str) -> Entry | None:
    """Films of the footage have JSON beside them too; only ours names checkpoints."""
    entry = _read_entry("video", path, _record_of(path))
    return entry if entry and checkpoints_of(entry) else None


def _still_there(places: Iterable[str]) -> set[str]:
    return {_folder_of(place) for place in set(places) if _is_there(place)}


def _is_there(place: str) -> bool:
    """A place that cannot be asked (no such protocol here, no right to look) is passed over."""
    try:
        return Store.open(place).exists("")
    except Exception as error:  # clients of object stores have errors of their own
        logger.warning("%s: cannot be looked at (%s)", place, " ".join(str(error).split())[:200])
        return False


def _folder_of(place: str) -> str:
    """A step's or a video's own folder, so that its history and its neighbours are found too."""
    store = Store.open(place)
    is_step = store.exists("checkpoint.json")
    is_file = store.uri.endswith(".mp4")
    return store.uri.rpartition("/")[0] if is_step or is_file else store.uri


def _siblings(near: Iterable[str]) -> set[str]:
    """The folders of the given places that exist, and the folders above them."""
    found: set[str] = set()
    for place in near:
        store = Store.open(place)
        if not store.exists(""):
            continue
        here = _folder_of(place)
        found.add(here)
        above = here.rpartition("/")[0]
        if above and not above.endswith(("/", ":")):  # the root of a disk, or all buckets
            found.add(above)
    return found
