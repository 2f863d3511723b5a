"""Where tracked runs say that outputs lie, answered without mlflow: importing that takes seconds.

A sqlite store is read directly, read-only; what its tables do not answer, and a server, is asked
through the client. What still waits in the spool of this machine counts as recorded.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.spool import files as spool_files
from pipelines.lineage.tracked import uri as tracking_uri
from pipelines.lineage.tracked.records import (
    KIND_TAG,
    MODEL_URI_TAG,
    PLACE_TAG,
    TAKEDOWN_URI_TAG,
    URI_TAGS,
)

BUSY_TIMEOUT_S = 5.0

_EXPERIMENT = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
_RUNS = f"""
    SELECT run_uuid FROM runs
    WHERE lifecycle_stage = 'active' AND experiment_id IN ({_EXPERIMENT})"""
_RUN_TAGS = f"SELECT DISTINCT value FROM tags WHERE key IN ({{keys}}) AND run_uuid IN ({_RUNS})"
_EDGES = f"""
    SELECT DISTINCT input_tags.value FROM input_tags JOIN inputs USING (input_uuid)
    WHERE input_tags.name = ? AND inputs.destination_type = 'RUN'
    AND inputs.destination_id IN ({_RUNS})"""
_MODELS = f"""
    SELECT DISTINCT tag_value FROM logged_model_tags JOIN logged_models USING (model_id)
    WHERE tag_key = ? AND lifecycle_stage = 'active'
    AND logged_models.experiment_id IN ({_EXPERIMENT})"""
_TAKEDOWNS = f"""
    SELECT DISTINCT place.value FROM tags AS place JOIN tags AS kind USING (run_uuid)
    WHERE place.key = ? AND kind.key = ? AND kind.value = 'takedown' AND run_uuid IN ({_RUNS})"""


def places_of(config: TrackingConfig) -> set[str]:
    """Every URI that the project's runs, their inputs and their models point to.

    Empty when tracking is off or nothing was ever recorded. Raises RequestError when a server
    does not answer, or the file is no tracking store.
    """
    if not config.enabled:
        return set()
    uri = tracking_uri.resolve(config.uri)
    found = _read(uri, lambda store: _places_in(store, config.project))
    if found is None:
        found = client_of(config).places()
    return found | waiting_places(uri, config.project)


def known_places(config: TrackingConfig) -> tuple[set[str], str]:
    """`places_of`, and empty; or nothing, and why a server does not say. A place that no tracking
    store can ever be is refused all the same (RequestError)."""
    if config.enabled:
        tracking_uri.resolve(config.uri)
    try:
        return places_of(config), ""
    except RequestError as error:
        if tracking_uri.sqlite_path(tracking_uri.resolve(config.uri)) is not None:
            raise
        return set(), str(error)


def takedowns_of(config: TrackingConfig) -> list[str]:
    """URIs, sorted, of the datasets that takedown runs wrote, or set out to write: a takedown that
    was interrupted names a folder without `dataset.json`. Raises as `places_of`."""
    if not config.enabled:
        return []
    uri = tracking_uri.resolve(config.uri)
    found = _read(uri, lambda store: _takedowns_in(store, config.project))
    if found is None:
        found = set(client_of(config).takedowns())
    return sorted(found | waiting_takedowns(uri, config.project))


def client_of(config: TrackingConfig) -> Any:
    """A `Tracker` that reads. Raises RequestError."""
    from pipelines.lineage.tracking import Tracker

    return Tracker.open_existing(config)


# --- a sqlite store --------------------------------------------------------------------------


def _read(uri: str, question: Any) -> set[str] | None:
    """None where the client must be asked: a server, or tables that are not as we know them."""
    path = tracking_uri.sqlite_path(uri)
    if path is None:
        return None
    if not path.exists():
        return set()
    try:
        with contextlib.closing(open_read_only(path)) as store:
            return {str(value) for value in question(store) if value}
    except sqlite3.Error:
        return None


def open_read_only(path: Path) -> sqlite3.Connection:
    """A server may be writing meanwhile, so it is not opened as "immutable"."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)


def _places_in(store: sqlite3.Connection, project: str) -> Iterator[str]:
    keys = ", ".join("?" * len(URI_TAGS))
    yield from _column(store, _RUN_TAGS.format(keys=keys), (*URI_TAGS, project))
    yield from _column(store, _EDGES, (PLACE_TAG, project))
    yield from _column(store, _MODELS, (MODEL_URI_TAG, project))


def _takedowns_in(store: sqlite3.Connection, project: str) -> Iterator[str]:
    yield from _column(store, _TAKEDOWNS, (TAKEDOWN_URI_TAG, KIND_TAG, project))


def _column(store: sqlite3.Connection, query: str, values: tuple[str, ...]) -> Iterator[str]:
    for (value,) in store.execute(query, values):
        yield value


# --- the spool of this machine -----------------------------------------------------------------


def waiting_places(uri: str, project: str) -> set[str]:
    """Those of records that the store has not got yet."""
    return set(_waiting(uri, project, {*URI_TAGS, MODEL_URI_TAG, PLACE_TAG}))


def waiting_takedowns(uri: str, project: str) -> set[str]:
    """Those of records that the store has not got yet."""
    return set(_waiting(uri, project, {TAKEDOWN_URI_TAG}))


def _waiting(uri: str, project: str, keys: Iterable[str]) -> Iterator[str]:
    """Values under these keys in records of the project that were not delivered yet."""
    wanted = frozenset(keys)
    for record in spool_files.undelivered(tracking_uri.spool_root(os.environ), uri, project):
        yield from _values_under(wanted, record)


def _values_under(keys: frozenset[str], record: Mapping[str, Any]) -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _values_under(keys, value)
        elif key in keys and isinstance(value, str) and value:
            yield value
