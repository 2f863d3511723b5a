"""Reading packs: a strided slice of a memory map, after one check of the whole file."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from pipelines.storage import Store, sha256_of_file
from pipelines.training.latents import Pack

_DTYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "I64": np.int64}


class DamagedPack(Exception):
    """A pack's bytes are not those that were encoded."""


class PackReader:
    """The packs of one set of latents; each is verified and mapped when first asked for.

    Packs of an object store are copied once to a temporary folder, removed by `close`.
    """

    def __init__(self, store: Store, packs: Mapping[str, Pack]) -> None:
        self._store, self._packs = store, packs
        self._open: dict[str, dict[str, np.ndarray]] = {}
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

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The pack's arrays by name, memory mapped. Raises DamagedPack naming the file."""
        if name not in self._open:
            path = self._local_path(name)
            self._verify(path, self._packs[name])
            self._open[name] = map_safetensors(path)
        return self._open[name]

    def close(self) -> None:
        self._open.clear()
        if self._cache is not None:
            shutil.rmtree(self._cache, ignore_errors=True)
            self._cache = None

    def _local_path(self, name: str) -> Path:
        if self._store.is_local:
            return Path(self._store.path(name))
        if self._cache is None:
            self._cache = Path(tempfile.mkdtemp(prefix="i2vgen-packs-"))
        target = self._cache / Path(name).name
        with self._store.as_local_file(name) as copy:
            shutil.move(copy, target)
        return target

    def _verify(self, path: Path, pack: Pack) -> None:
        # Once per pack and process: the bytes are read in any case, and stay in the page cache.
        if not path.is_file():
            raise DamagedPack(f"{self._store.path(pack.pack)} is missing; encode again")
        if path.stat().st_size != pack.bytes or sha256_of_file(path) != pack.sha256:
            raise DamagedPack(
                f"{self._store.path(pack.pack)} is damaged: its bytes are not those that "
                "packs.parquet names; encode again"
            )


def map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file without reading them.

    Format: https://huggingface.co/docs/safetensors: 8 bytes of header length, a JSON header, data.
    Unlike the library's slices, these arrays take strides, which is how a slower rate is read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        arrays[name] = data[first:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
