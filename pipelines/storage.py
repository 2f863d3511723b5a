"""One way to reach a local folder or an object store, and to publish files whole or not at all.

A `Store` is a folder (`/data/set`, `file:///data/set`) or a prefix (`s3://bucket/set`). Every
output of this project is written through one, under the same rule: data files first, the file
that *names* them (`dataset.json`, `latents.json`, `checkpoint.json`, a commit) last. A reader
that finds the naming file finds everything; a reader that does not, finds nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY_PREFIX = ".tmp-"
COPY_CHUNK_BYTES = 4 << 20

# Rows that are kept together in a table: a question about a few of them reads one group, and a
# writer holds one group in memory, also where every row carries an embedding.
ROW_GROUP_ROWS = 65_536


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def absolute_uri(uri: str) -> str:
    """A URI that means the same from any working directory (a Ray job runs in another one)."""
    if not is_local(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().absolute())


def sha256_of_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(COPY_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder or an object-store prefix. Paths given to its methods are relative to it."""

    uri: str

    @classmethod
    def open(cls, uri: str) -> Store:
        """Raises RequestError when the URI's protocol is unknown."""
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
        import fsspec

        # Others write and remove here too: a listing is true for the moment it is made.
        options = {} if self.is_local else {"use_listings_cache": False}
        filesystem, root = fsspec.core.url_to_fs(self.uri, **options)
        return filesystem, str(root)

    # --- reading -------------------------------------------------------------------------

    def exists(self, relative: str) -> bool:
        if self.is_local:
            return os.path.lexists(self.path(relative))
        filesystem, root = self._filesystem()
        return bool(filesystem.exists(f"{root}/{relative}"))

    def read_bytes(self, relative: str) -> bytes:
        if self.is_local:
            return Path(self.path(relative)).read_bytes()
        filesystem, root = self._filesystem()
        return bytes(filesystem.cat_file(f"{root}/{relative}"))

    def read_range(self, relative: str, start: int, size: int) -> bytes:
        """`size` bytes from `start`; fewer where the file ends before."""
        if self.is_local:
            with open(self.path(relative), "rb") as file:
                file.seek(start)
                return file.read(size)
        filesystem, root = self._filesystem()
        return bytes(filesystem.cat_file(f"{root}/{relative}", start=start, end=start + size))

    def read_json(self, relative: str) -> Any:
        return json.loads(self.read_bytes(relative))

    def read_table(
        self, relative: str, columns: list[str] | None = None, filters: Any = None
    ) -> pa.Table:
        """A parquet file, or a directory of parts under the same name.

        `filters` as in `pyarrow.parquet.read_table`: only rows that pass are read.
        """
        import pyarrow.parquet as pq

        filesystem, root = self._filesystem()
        return pq.read_table(
            f"{root}/{relative}", columns=columns, filters=filters, filesystem=filesystem
        )

    def read_table_groups(self, relative: str) -> Iterator[pa.Table]:
        """The same, a group of rows at a time, in order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        filesystem, root = self._filesystem()
        path = f"{root}/{relative}"
        parts = [path]
        if filesystem.isdir(path):
            parts = sorted(p for p in filesystem.ls(path, detail=False) if p.endswith(".parquet"))
        for part in parts:
            with filesystem.open(part, "rb") as file:
                groups = pq.ParquetFile(file)
                for number in range(groups.num_row_groups):
                    yield groups.read_row_group(number)
                if not groups.num_row_groups:
                    yield pa.Table.from_batches([], schema=groups.schema_arrow)

    def list_files(self, relative: str = "") -> list[str]:
        """Relative paths of all published files below `relative`, sorted; [] where none is."""
        if self.is_local:
            root = Path(self.path(relative))
            found = (p.relative_to(self.uri) for p in root.rglob("*") if p.is_file())
            names = [str(p) for p in found]
        else:
            filesystem, base = self._filesystem()
            prefix = f"{base}/{relative}".rstrip("/")
            names = [n[len(base) + 1 :] for n in filesystem.find(prefix)]
        return sorted(n for n in names if not _is_temporary(n))

    def list_folders(self) -> list[str]:
        """Names of the folders right below, sorted; [] where there is no such place."""
        filesystem, root = self._filesystem()
        try:
            entries = filesystem.ls(root, detail=True)
        except OSError:
            return []
        folders = (entry["name"] for entry in entries if entry["type"] == "directory")
        return sorted(folder.rstrip("/").rpartition("/")[2] for folder in folders)

    @contextmanager
    def as_local_file(self, relative: str) -> Iterator[Path]:
        """The file as a local path: itself in a local store, a copy for the block otherwise."""
        if self.is_local:
            yield Path(self.path(relative))
            return
        with tempfile.TemporaryDirectory(prefix="i2vgen-") as folder:
            local = Path(folder) / Path(relative).name
            filesystem, root = self._filesystem()
            filesystem.get_file(f"{root}/{relative}", str(local))
            yield local

    # --- publishing ----------------------------------------------------------------------

    def write_bytes(self, relative: str, data: bytes) -> None:
        """The whole file appears at once, durable, or not at all."""
        if not self.is_local:
            filesystem, root = self._filesystem()
            filesystem.pipe_file(f"{root}/{relative}", data)
            return
        with self.publishing(relative) as temporary:
            temporary.write_bytes(data)

    def write_json(self, relative: str, value: Any) -> None:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        self.write_bytes(relative, text.encode() + b"\n")

    def write_table(self, relative: str, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        with self.publishing(relative) as temporary:
            pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS)

    def write_table_groups(self, relative: str, groups: Iterable[pa.Table]) -> None:
        """A table from its groups of rows, one of them in memory at a time; at least one."""
        import pyarrow.parquet as pq

        remaining = iter(groups)
        first = next(remaining)
        with (
            self.publishing(relative) as temporary,
            pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer,
        ):
            for group in itertools.chain([first], remaining):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)

    @contextmanager
    def publishing(self, relative: str) -> Iterator[Path]:
        """Gives a local temporary path to fill; on a clean exit it becomes `relative`.

        Locally: fsync, rename, fsync of the folder. In an object store: one upload, which such
        stores make visible whole. On an exception the temporary file goes and nothing is seen.
        """
        if self.is_local:
            target = Path(self.path(relative))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{target.name}")
        else:
            temporary = Path(tempfile.mkdtemp(prefix="i2vgen-")) / Path(relative).name
        try:
            yield temporary
            if self.is_local:
                fsync_path(temporary)
                os.replace(temporary, target)
                fsync_path(target.parent)
            else:
                filesystem, root = self._filesystem()
                filesystem.put_file(str(temporary), f"{root}/{relative}")
        finally:
            if self.is_local:
                temporary.unlink(missing_ok=True)
            else:
                shutil.rmtree(temporary.parent, ignore_errors=True)

    def remove(self, relative: str) -> None:
        if self.is_local:
            target = Path(self.path(relative))
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            return
        filesystem, root = self._filesystem()
        path = f"{root}/{relative}"
        if any(c in path for c in "*?["):  # fsspec's rm would take it for a pattern
            for name in filesystem.find(path):
                filesystem.rm_file(name)
        elif filesystem.exists(path):
            filesystem.rm(path, recursive=True)

    def remove_temporaries(self) -> None:
        """Clears what an interrupted writer left; only call while no other writer is at work."""
        if self.is_local:
            for path in Path(self.uri).rglob(f"{TEMPORARY_PREFIX}*"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Raises RequestError, naming the place, when nothing can be written here."""
        if not self.is_local:
            return
        try:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.uri, prefix=TEMPORARY_PREFIX):
                pass
        except OSError as error:
            raise RequestError(
                f"{self.uri}: cannot write here ({error.strerror}); give a writable folder"
            ) from error


def fsync_path(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_temporary(relative: str) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in Path(relative).parts)
