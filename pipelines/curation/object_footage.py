"""The footage of an object store: one listing says all that is known of it before it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipelines.config import RequestError
from pipelines.curation.found import Found, problem_of_name, readable_name, sorted_by_name
from pipelines.curation.rights.sidecars import MAX_SIDECAR_BYTES, names_beside
from pipelines.storage import Store
from pipelines.storage.fetching import version_in


def list_objects(uri: str) -> Sequence[Found]:
    """Every object below the prefix that is not a folder's mark, sorted by name.

    Raises RequestError when there is nothing, or no such place.
    """
    store = Store.open(uri)
    try:
        entries = store.list_entries()
    except FileNotFoundError as error:
        raise RequestError(f"--footage {uri}: no such bucket or prefix") from error
    except NotImplementedError as error:
        raise RequestError(
            f"--footage {uri}: this store cannot be listed; copy it to one that can"
        ) from error
    found = sorted_by_name(_found(store, entries))
    if not found:
        raise RequestError(f"--footage {uri}: nothing is there; put footage in it")
    return found


def _found(store: Store, entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Found]:
    small = {key for key, said in entries.items() if _size_of(said) <= MAX_SIDECAR_BYTES}
    for key, said in entries.items():
        if not key or said.get("type") == "directory" or _is_folder_mark(key, said):
            continue
        size_bytes = _size_of(said)
        yield Found(
            readable_name(os.fsencode(key)),
            store.path(key),
            size_bytes,
            mtime_ns=_changed_ns(said),
            problem=problem_of_name(key) if size_bytes else "empty",
            version=version_in(said),
            beside=_beside(store, key, small),
        )


def _is_folder_mark(key: str, said: Mapping[str, Any]) -> bool:
    """Consoles make an empty object whose name ends in a slash for each folder."""
    return key.endswith("/") and not _size_of(said)


def _beside(store: Store, key: str, small: Collection[str]) -> str:
    """JSON of the places of what states rights of it: the listing says that there are any."""
    there = [store.path(name) for name in names_beside(key) if name in small]
    return json.dumps(there) if there else ""


def _size_of(said: Mapping[str, Any]) -> int:
    return int(said.get("size") or 0)


def _changed_ns(said: Mapping[str, Any]) -> int:
    changed = said.get("LastModified") or said.get("mtime")
    return int(changed.timestamp() * 1e9) if isinstance(changed, datetime) else 0
