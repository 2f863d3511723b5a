"""What exists: every dataset, latents folder, checkpoint and generated video that can be found.

Things are found by the file that names them (`dataset.json`, `latents.json`, `checkpoint.json`,
`NAME.json` beside a generated `NAME.mp4`), never by a folder's name, and referred to by digest:
a copy elsewhere is the same thing.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.config import RequestError
from pipelines.lineage.tracking import Tracker
from pipelines.storage import Store, absolute_uri, is_local

logger = logging.getLogger(__name__)

NAMING_FILES = {
    "dataset.json": "dataset",
    "latents.json": "latents",
    "checkpoint.json": "checkpoint",
}
VIDEO_ENDING = ".mp4"
SIBLING_DEPTH = 2
SKIPPED_FOLDERS = {"_work", "_ray", "shards", "packs", "unet", "ema", ".git", ".venv", "logs"}
URI_TAGS = ("dataset.uri", "latents.uri", "checkpoint.uri", "checkpoints.uri", "video.uri")
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
        return str(self.header.get("digest", ""))

    @property
    def folder(self) -> str:
        return self.uri.rpartition("/")[0]

    @property
    def step(self) -> int:
        return int(self.header.get("step", 0))

    def table(self, name: str, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        """Raises RequestError naming the file when it cannot be read."""
        try:
            return Store(self.uri).read_table(name, columns, filters)
        except (OSError, pa.ArrowException) as error:
            raise RequestError(f"{self.uri}/{name}: {error}".splitlines()[0]) from error


@dataclass(frozen=True)
class Catalog:
    """Entries sorted by kind, folder and step; each place once."""

    entries: tuple[Entry, ...]

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

    def find(self, kind: str, reference: dict[str, Any] | None) -> Entry | None:
        """What {"uri", "digest"} refers to: at that place if it is still that thing, else a copy
        with that digest anywhere."""
        if not reference:
            return None
        same = self._same.get((kind, str(reference.get("digest", ""))), [])
        here = [e for e in same if e.uri == reference.get("uri")]
        return next(iter(here or same), None)

    def history(self, checkpoint: Entry) -> list[Entry]:
        """The checkpoint and those before it in the same training, newest first.

        Each holds what was seen since its parent, so together they hold all of it.
        """
        chain = [checkpoint]
        while parent := self.find("checkpoint", chain[-1].header.get("parent")):
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


def build(
    under: Sequence[str], tracker: Tracker | None = None, near: Iterable[str] = ()
) -> Catalog:
    """Looks below `under` when given; else where the tracker's runs point and around `near`."""
    found: list[Entry] = []
    if under:
        for root in under:
            if not Store.open(root).exists(""):
                raise RequestError(f"--under {root}: no such folder")
            found += entries_below(root)
    else:
        for place in {*_tracked_places(tracker), *_siblings(near)}:
            found += entries_below(place, SIBLING_DEPTH)
    unique = {(entry.kind, entry.uri): entry for entry in found}
    order = sorted(unique.values(), key=lambda e: (e.kind, e.folder, e.step, e.uri))
    return Catalog(tuple(order))


def entries_below(root: str, depth: int | None = None) -> Iterator[Entry]:
    """Every entry at or below `root`, at most `depth` folders down (local folders only)."""
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
    if not is_local(root):
        store = Store.open(root)
        yield from (store.path(name) for name in store.list_files())
        return
    for folder, folders, files in os.walk(root):
        level = len(Path(folder).relative_to(root).parts)
        keep = depth is None or level < depth
        folders[:] = sorted(f for f in folders if keep and _is_worth_entering(f))
        yield from (f"{folder}/{name}" for name in files)


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
    folder, _, name = path.rpartition("/")
    record = f"{name.removesuffix(VIDEO_ENDING)}.json"
    if not Store(folder).exists(record):
        return None
    entry = _read_entry("video", path, f"{folder}/{record}")
    return entry if entry and checkpoints_of(entry) else None


def _tracked_places(tracker: Tracker | None) -> set[str]:
    if tracker is None:
        return set()
    places: set[str] = set()
    for run in tracker.runs():
        places |= {run.tags[tag] for tag in URI_TAGS if run.tags.get(tag)}
        places |= {edge.uri for edge in run.inputs if edge.uri}
    places |= {model.uri for model in tracker.models() if model.uri}
    return {_folder_of(place) for place in places if Store.open(place).exists("")}


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
        if is_local(here) and Path(here).parent != Path(Path(here).anchor):
            found.add(str(Path(here).parent))
    return found
