"""Publishing files whole or not at all, in a local folder or an object store.

A `Store` is a folder (`/data/set`, `file:///data/set`) or a prefix (`s3://bucket/set`). Every
output of this project is written through one, under the same rule: data files first, the file
that *names* them (`dataset.json`, `latents.json`, `checkpoint.json`, a commit) last. A reader
that finds the naming file finds everything; a reader that does not, finds nothing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import RequestError
from pipelines.storage import conditional_writes, local_folders, tables
from pipelines.storage.durable_files import TEMPORARY_PREFIX, appearing
from pipelines.storage.object_store import (
    Overtaken,
    remove,
)
from pipelines.storage.readable import Readable, local_name

if TYPE_CHECKING:
    import pyarrow as pa


class Store(Readable):
    """A folder or an object-store prefix, to read and to publish in. Paths given to its methods are
    relative to it."""

    def write_bytes(self, relative: str, data: bytes) -> None:
        """The whole file appears at once, durable, or not at all."""
        if not self.is_local:
            with self._bucket_there():
                self._ask(relative, lambda filesystem, path: filesystem.pipe_file(path, data))
            return
        with self.publishing(relative) as temporary:
            temporary.write_bytes(data)

    def create_bytes(self, relative: str, data: bytes) -> None:
        """As `write_bytes`, where nothing is. Raises Overtaken when something is: in an object
        store also when another machine wrote it this very moment."""
        if not self.is_local:
            with self._bucket_there():
                self._ask(relative, lambda fs, path: conditional_writes.create(fs, path, data))
            return
        if not self.exists(relative):
            self.write_bytes(relative, data)
        elif self.read_bytes(relative) != data:
            raise Overtaken(f"{self.path(relative)}: another writer was first")

    def replace_bytes(self, relative: str, data: bytes, version: str) -> None:
        """In an object store: what is there in that version gives way. Raises Overtaken when it is
        another one now, or gone."""
        self._ask(relative, lambda fs, path: conditional_writes.replace(fs, path, data, version))

    def publish_bytes(self, relative: str, data: bytes) -> None:
        """Writes the file that names all others, once for all. Raises RequestError when another
        job has written a different one."""
        try:
            self.create_bytes(relative, data)
        except Overtaken as error:
            raise RequestError(
                f"{self.path(relative)}: another job was first; its work stands, choose another "
                "place for this one"
            ) from error

    def write_json(self, relative: str, value: Any) -> None:
        self.write_bytes(relative, _json_bytes(value))

    def write_table(self, relative: str, table: pa.Table) -> None:
        self.write_table_groups(relative, [table])

    def write_table_groups(self, relative: str, groups: Iterable[pa.Table]) -> None:
        """A table from its groups of rows, one of them in memory at a time; at least one."""
        with self.publishing(relative) as temporary:
            tables.write_groups(temporary, groups)

    @contextmanager
    def publishing(self, relative: str) -> Iterator[Path]:
        """Gives a local temporary path to fill; on a clean exit it becomes `relative`.

        Locally: fsync, rename, fsync of the folder. In an object store: one upload, which such
        stores make visible whole. On an exception the temporary file goes and nothing is seen.
        """
        if self.is_local:
            with appearing(Path(self.path(relative))) as temporary:
                yield temporary
            return
        folder = Path(tempfile.mkdtemp(prefix="i2vgen-"))
        try:
            yield folder / local_name(relative)
            self.upload(folder / local_name(relative), relative)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def upload(self, local: Path, relative: str) -> None:
        """A local file becomes an object of an object store, whole or not at all."""
        with self._bucket_there():
            self._ask(relative, lambda filesystem, path: filesystem.put_file(str(local), path))

    def remove(self, relative: str) -> None:
        if self.is_local:
            local_folders.remove(Path(self.path(relative)))
            return
        self._ask(relative, remove)

    def remove_but_lock(self, relative: str, lock: str) -> None:
        """All below. In an object store without the lock, which its holder removes: it would take
        it for lost."""
        if self.is_local:
            self.remove(relative)
            return
        kept = f"{self._filesystem()[1]}/{lock}"
        self._ask(relative, lambda filesystem, path: remove(filesystem, path, kept))

    def remove_temporaries(self, but_in: str = "") -> None:
        """Clears what an interrupted writer left; only call while no other writer is at work. The
        folder `but_in` right below is left as it is."""
        if self.is_local:
            local_folders.remove_temporaries(self.uri, but_in)

    def check_writable(self) -> None:
        """Raises RequestError, naming the place, when nothing can be written here."""
        if not self.is_local:
            probe = f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex[:12]}"
            self.write_bytes(probe, b"")
            self.remove(probe)
            return
        local_folders.check_writable(Path(self.uri))

    @contextmanager
    def _bucket_there(self) -> Iterator[None]:
        """What cannot be written because something is not there lacks its bucket: there are no
        folders in an object store."""
        try:
            yield
        except FileNotFoundError as error:
            raise RequestError(
                f"{self.uri}: there is no such bucket; make it, or give another place"
            ) from error


def _json_bytes(value: Any) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"
