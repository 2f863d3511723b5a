"""One way to reach a local folder or an object store, and what can be read there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pipelines.config import RequestError, check_no_secret
from pipelines.storage import conditional_writes, local_folders, tables
from pipelines.storage.durable_files import TEMPORARY_PREFIX
from pipelines.storage.fetching import Fetched, WrongBytes, fetched, version_in, whole
from pipelines.storage.object_store import filesystem_of, is_there, patiently
from pipelines.storage.s3_requests import is_file_there, names_below
from pipelines.storage.uris import absolute_uri, is_local

if TYPE_CHECKING:
    import pyarrow as pa

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Readable:
    """A folder or an object-store prefix. Paths given to its methods are relative to it.

    An object store that fails is asked again for a while (object_store.py). Then methods raise
    StoreUnreachable, or RequestError where access is refused.
    """

    uri: str

    @classmethod
    def open(cls, uri: str) -> Self:
        """Raises RequestError when the URI's protocol is unknown, or it holds a password."""
        check_no_secret(uri, "store")
        store = cls(absolute_uri(uri))
        if not is_local(store.uri):
            try:
                store.filesystem()
            except (ImportError, ValueError) as error:
                raise RequestError(
                    f"{uri}: this storage cannot be reached from here ({error}); "
                    "give a local folder, or install the store's fsspec package"
                ) from error
        return store

    @property
    def is_local(self) -> bool:
        return is_local(self.uri)

    def path(self, relative: str = "") -> str:
        return f"{self.uri}/{relative}" if relative else self.uri

    def filesystem(self) -> Any:
        """The fsspec filesystem that reaches it."""
        return self._filesystem()[0]

    def _filesystem(self) -> tuple[Any, str]:
        return filesystem_of(self.uri)

    def _ask(self, relative: str, ask: Callable[[Any, str], Answer]) -> Answer:
        """`ask(filesystem, path)`, with patience."""
        filesystem, root = self._filesystem()
        path = f"{root}/{relative}" if relative else root
        return patiently(self.path(relative), lambda: ask(filesystem, path))

    def exists(self, relative: str) -> bool:
        if self.is_local:
            return os.path.lexists(self.path(relative))
        return self._ask(relative, is_there)

    def has_file(self, relative: str) -> bool:
        """The same of what can be no folder: one request."""
        if self.is_local:
            return os.path.lexists(self.path(relative))
        return self._ask(relative, is_file_there)

    def read_bytes(self, relative: str) -> bytes:
        if self.is_local:
            return Path(self.path(relative)).read_bytes()
        return self._ask(relative, whole)

    def version(self, relative: str) -> str | None:
        """In an object store: changes with every write; None where nothing is."""
        return self._ask(relative, conditional_writes.version_of)

    def size_and_version(self, relative: str) -> tuple[int, str]:
        """In an object store, of what is there. Raises FileNotFoundError."""
        said = self._ask(relative, lambda filesystem, path: filesystem.info(path))
        return int(said["size"]), version_in(said)

    def changed_s(self, relative: str) -> float | None:
        """In an object store: when it was last written, by the store's clock; None where that, or
        the object, is not known."""
        return self._ask(relative, conditional_writes.changed_s)

    def read_range(
        self,
        relative: str,
        start: int,
        size: int,
        is_right: Callable[[bytes], bool] = lambda _: True,
    ) -> bytes:
        """`size` bytes from `start`; fewer where the file ends before. No store states a checksum
        of a part, so give `is_right` where it matters: WrongBytes is raised when it never holds."""

        def right(data: bytes) -> bytes:
            if not is_right(data):
                raise WrongBytes(f"{self.path(relative)}: not the bytes that were written there")
            return data

        if self.is_local:
            with open(self.path(relative), "rb") as file:
                file.seek(start)
                return right(file.read(size))
        return self._ask(
            relative,
            lambda fs, path: right(bytes(fs.cat_file(path, start=start, end=start + size))),
        )

    def read_json(self, relative: str) -> Any:
        if self.is_local:
            return json.loads(self.read_bytes(relative))
        return self._ask(relative, lambda fs, path: json.loads(whole(fs, path)))

    def read_table(
        self, relative: str, columns: list[str] | None = None, filters: Any = None
    ) -> pa.Table:
        """A parquet file, or a directory of parts under the same name.

        `filters` as in `pyarrow.parquet.read_table`: only rows that pass are read.
        """
        import pyarrow.parquet as pq

        if self.is_local:
            return pq.read_table(self.path(relative), columns=columns, filters=filters)
        seen: set[str] = set()
        return self._ask(
            relative,
            lambda fs, path: tables.read_table(fs, path, columns, filters, seen),
        )

    def read_table_file(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        """The same of what can be no directory of parts: one request, also where nothing is."""
        if self.is_local:
            return self.read_table(relative, columns)
        seen: set[str] = set()
        return self._ask(relative, lambda fs, path: tables.read_file(fs, path, columns, None, seen))

    def read_table_groups(
        self, relative: str, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """The same, a group of rows at a time, in order."""
        for part in self._parts_of(relative):
            with self.as_local_file(part) as path:
                yield from tables.groups_of(path, columns)

    def _parts_of(self, relative: str) -> list[str]:
        inside = [name for name in self.list_files(relative) if name.endswith(".parquet")]
        return inside or [relative]

    def list_files(self, relative: str = "") -> list[str]:
        """Relative paths of all published files below `relative`, sorted; [] where none is."""
        names: Iterable[str]
        if self.is_local:
            names = local_folders.names_below(self.uri, relative)
        else:
            base = self._filesystem()[1]
            below = self._ask(relative.rstrip("/"), lambda fs, path: list(fs.find(path)))
            names = [name[len(base) + 1 :] for name in below]
        return sorted(n for n in names if not _is_temporary(n))

    def list_below(self, relative: str) -> list[str]:
        """The same of what can be no file: one request, also where nothing is."""
        return sorted(self.names_below(relative))

    def names_below(self, relative: str) -> Iterator[str]:
        """The same in no order; on a disk as they are read, never all in memory."""
        names: Iterable[str]
        if self.is_local:
            names = local_folders.names_below(self.uri, relative)
        else:
            base = self._filesystem()[1]
            names = (name[len(base) + 1 :] for name in self._ask(relative, names_below))
        return (n for n in names if not _is_temporary(n))

    def list_entries(self) -> dict[str, dict[str, Any]]:
        """What an object store says of each object below, by relative path: one listing."""

        def listed(filesystem: Any, path: str) -> dict[str, dict[str, Any]]:
            return dict(filesystem.find(path, detail=True))

        base = self._filesystem()[1]
        return {name[len(base) + 1 :]: said for name, said in self._ask("", listed).items()}

    def list_folders(self) -> list[str]:
        """Names of the folders right below, sorted; [] where there is no such place."""
        return self.list_level()[0]

    def list_level(self, relative: str = "") -> tuple[list[str], list[str]]:
        """Names of the folders and of the files right below, sorted; none where nothing is."""
        try:
            listed = self._ask(relative, lambda fs, path: fs.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        names: dict[bool, list[str]] = {True: [], False: []}
        for entry in listed:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            names[entry["type"] == "directory"].append(name)
        return sorted(names[True]), sorted(names[False])

    @contextmanager
    def as_local_file(self, relative: str) -> Iterator[Path]:
        """The file as a local path: itself in a local store, a copy for the block otherwise."""
        if self.is_local:
            yield Path(self.path(relative))
            return
        with tempfile.TemporaryDirectory(prefix="i2vgen-") as folder:
            local = Path(folder) / local_name(relative)
            self.fetch(relative, local)
            yield local

    def fetch(self, relative: str, target: Path) -> Fetched:
        """Copies a whole object of an object store into a local file, and says what came."""
        seen: set[str] = set()
        return self._ask(relative, lambda fs, path: fetched(fs, path, target, seen))


def local_name(relative: str) -> str:
    """Names of objects may be longer than a file's, or go up."""
    name = relative.rpartition("/")[2][-60:]
    return "object" if name in ("", ".", "..") else name


def _is_temporary(relative: str) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in Path(relative).parts)
