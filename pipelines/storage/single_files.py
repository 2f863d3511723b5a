"""Files and folders that a request names by URI, as local paths: what is read, and what is made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.storage import Store, absolute_uri, is_local


def store_of_file(uri: str) -> tuple[Store, str]:
    """The folder or prefix that a file lies in, and its name there. Raises RequestError."""
    folder, _, name = absolute_uri(uri).rpartition("/")
    return Store.open(folder or "/"), name


def is_file(uri: str) -> bool:
    """Raises RequestError where a store is closed to us, StoreUnreachable when it is silent."""
    if is_local(uri):
        return Path(absolute_uri(uri)).is_file()
    store, name = store_of_file(uri)
    return bool(name) and store.exists(name)


def read_text(uri: str, encoding: str = "utf-8") -> str:
    """Raises OSError and UnicodeDecodeError; RequestError and StoreUnreachable as above."""
    if is_local(uri):
        return Path(uri.removeprefix("file://")).read_text(encoding)
    store, name = store_of_file(uri)
    return store.read_bytes(name).decode(encoding)


@contextmanager
def local_file(uri: str) -> Iterator[Path]:
    """The file itself, or a copy of the object for the block. Raises FileNotFoundError."""
    if is_local(uri):
        yield Path(uri.removeprefix("file://"))
        return
    store, name = store_of_file(uri)
    with store.as_local_file(name) as path:
        yield path


@contextmanager
def filled_folder(uri: str, last: Sequence[str] = ()) -> Iterator[Path]:
    """A local folder to write into: the place itself, or one whose files go to the object store on
    a clean exit, those named in `last` after all others."""
    if is_local(uri):
        folder = Path(absolute_uri(uri))
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    store = Store.open(uri)
    with tempfile.TemporaryDirectory(prefix="i2vgen-out-") as temporary:
        folder = Path(temporary)
        yield folder
        files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        for name in sorted(files, key=lambda n: (n in last, n)):
            store.upload(folder / name, name)
