"""Reading packs: a strided slice of a memory map, after one check of the whole file."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipelines.storage import Store
from pipelines.training.latents.on_disk import Pack

_DTYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "I64": np.int64}

Arrays = dict[str, np.ndarray]
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]

FETCH_THREADS = 2  # copy and verify packs ahead of their use


class DamagedPack(Exception):
    """A pack's bytes are not those that were encoded."""


class PackReader:
    """The packs of one set of latents; each is verified and mapped when first asked for, or before,
    in the background, when `prepare` announces it.

    At most `most_open` packs stay mapped (and one more for each thread that waits for another):
    those used longest ago are let go. Packs of an object
    store are copied to a temporary folder; a copy goes with its pack, all of them with `close`.
    Safe to call from several threads.
    """

    def __init__(self, store: Store, packs: Mapping[str, Pack], *, most_open: int = 256) -> None:
        self._store, self._packs, self._most_open = store, packs, most_open
        self._open: OrderedDict[str, Future[Arrays]] = OrderedDict()
        self._verified: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._background = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="packs")
        self._cache: Path | None = None

    def __enter__(self) -> PackReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def arrays(self, name: str) -> Arrays:
        """The pack's arrays by name, memory mapped. Raises DamagedPack naming the file."""
        future, is_ours = self._claim(name)
        if is_ours:
            self._load(name, future)
        return future.result()

    def prepare(self, names: Iterable[str]) -> None:
        """`names` in the order of their use. Of those that are not open, as many are fetched as
        there is room for, and never so many that one goes before it was used. What is wrong with
        one of them is raised when it is asked for."""
        for name in islice(names, max(1, self._most_open // 2)):
            if not self._has_room_for(name):
                return
            future, is_ours = self._claim(name)
            if is_ours:
                self._background.submit(self._load, name, future)

    @property
    def open_packs(self) -> list[str]:
        """Longest unused first."""
        with self._lock:
            return list(self._open)

    def close(self) -> None:
        self._background.shutdown(cancel_futures=True)
        with self._lock:
            self._open.clear()
            if self._cache is not None:
                shutil.rmtree(self._cache, ignore_errors=True)
                self._cache = None

    def _has_room_for(self, name: str) -> bool:
        """Packs that are still being fetched cannot be let go."""
        with self._lock:
            busy = sum(not future.done() for future in self._open.values())
            return name in self._open or busy < self._most_open

    def _claim(self, name: str) -> tuple[Future[Arrays], bool]:
        """The pack's future, and whether the caller is the one to fulfil it."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name], False
            future: Future[Arrays] = Future()
            self._open[name] = future
            self._let_go_of_oldest()
            return future, True

    def _let_go_of_oldest(self) -> None:
        done = [name for name, future in self._open.items() if future.done()]
        for name in done[: max(0, len(self._open) - self._most_open)]:
            del self._open[name]
            if self._cache is not None:
                # Who still reads from it keeps the mapping, and with it the bytes.
                (self._cache / Path(name).name).unlink(missing_ok=True)

    def _load(self, name: str, future: Future[Arrays]) -> None:
        try:
            path = self._local_path(name)
            arrays = arrays_in(self._verified_bytes(path, self._packs[name]))
        except BaseException as error:
            with self._lock:
                self._open.pop(name, None)
            future.set_exception(error)
            return
        future.set_result(arrays)
        with self._lock:
            self._let_go_of_oldest()

    def _local_path(self, name: str) -> Path:
        if self._store.is_local:
            return Path(self._store.path(name))
        with self._lock:
            if self._cache is None:
                self._cache = Path(tempfile.mkdtemp(prefix="i2vgen-packs-"))
            target = self._cache / Path(name).name
        with self._store.as_local_file(name) as copy:
            shutil.move(copy, target)
        return target

    def _verified_bytes(self, path: Path, pack: Pack) -> Bytes:
        """The mapped file, hashed once for each file of a local store, and for each copy of
        another's. The hash is taken from the map: what it reads is there when the feed does."""
        if not path.is_file():
            raise DamagedPack(f"{self._store.path(pack.pack)} is missing; encode again")
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        is_whole = status.st_size == pack.bytes
        data = mapped(path) if is_whole else np.empty(0, np.uint8)
        if self._store.is_local and self._verified.get(pack.pack) == stamp:
            return data
        if not is_whole or hashlib.sha256(data.data).hexdigest() != pack.sha256:
            raise DamagedPack(
                f"{self._store.path(pack.pack)} is damaged: its bytes are not those that "
                "packs.parquet names; encode again"
            )
        self._verified[pack.pack] = stamp
        return data


def map_safetensors(path: Path) -> Arrays:
    """The arrays of a safetensors file without reading them."""
    return arrays_in(mapped(path))


def mapped(path: Path) -> Bytes:
    """A file's bytes, memory mapped. Copy on write: tensors may lie over them without a warning,
    and what is written to them never reaches the file."""
    data = np.memmap(path, dtype=np.uint8, mode="c")
    if hasattr(mmap, "MADV_WILLNEED"):
        data._mmap.madvise(mmap.MADV_WILLNEED)  # type: ignore[attr-defined]
    return data


def arrays_in(data: Bytes) -> Arrays:
    """The arrays in the bytes of a safetensors file, as views.

    Format: https://huggingface.co/docs/safetensors: 8 bytes of header length, a JSON header, data.
    Unlike the library's slices, these arrays take strides, which is how a slower rate is read.
    Raises DamagedPack.
    """
    length = int.from_bytes(data[:8].tobytes(), "little")
    header, data = data[8 : 8 + length], data[8 + length :]
    arrays = {}
    try:
        for name, entry in json.loads(header.tobytes().decode()).items():
            if name != "__metadata__":
                arrays[name] = _array_in(data, entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedPack(f"not a whole safetensors file ({error!r:.100})") from None
    return arrays


def _array_in(data: Bytes, entry: Mapping[str, Any]) -> np.ndarray:
    first, end = entry["data_offsets"]
    if not 0 <= first <= end <= len(data):
        raise ValueError(f"bytes {first} to {end} of {len(data)}")
    return data[first:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
