"""Checkpoints on disk, and reading them: every file named by its sha256, no pickle.

    CHECKPOINTS/latest.json               names the newest durable checkpoint
                step-00000020/unet/       config.json, diffusion_pytorch_model.safetensors
                              ema/        the same, averaged weights
                              trainer.safetensors, trainer.json   optimizer, random states, place
                              lineage.parquet   clips seen since the parent checkpoint
                              README.md         the model card: what it learned from, licences
                              checkpoint.json   all of the above by hash; written last
                _ray/                     Ray Train's own notes; of no use to a reader

Older checkpoints are thinned to lineage.parquet, README.md and checkpoint.json, so that every clip
a model ever saw can still be named when the weights of its early steps are gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.storage import Store, sha256_of_file
from pipelines.storage.seal import unsealed

SCHEMA_VERSION = 1
HEADER_FILE = "checkpoint.json"
LATEST_FILE = "latest.json"


@dataclass(frozen=True)
class CheckpointHeader:
    """checkpoint.json. `files` maps each file to its sha256; `digest` is 32 hex digits over them.

    `preset` names the entry of model/presets.py; `model` and `diffusion` are its network and noise.
    `identity` hashes what must not change between two commands that go on from each other.
    `base` (refinement only) and `parent` (the checkpoint before, in the same folder) are null or
    name what this grew from; `latents`, `dataset` and `base` are {"uri", "digest"}.
    """

    schema_version: int
    digest: str
    stage: str
    step: int
    phase: str
    finished: bool
    loss: float
    samples_seen: int
    parent: dict[str, str] | None
    base: dict[str, str] | None
    latents: dict[str, str]
    dataset: dict[str, str]
    encoders: dict[str, dict[str, str]]
    size_px: tuple[int, int]
    preset: str
    model: dict[str, Any]
    diffusion: dict[str, Any]
    phases: list[dict[str, Any]]
    config: dict[str, Any]
    config_hash: str
    identity: str
    files: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint. `store` is its own directory."""

    store: Store
    header: CheckpointHeader

    @property
    def name(self) -> str:
        return self.store.uri.rstrip("/").rpartition("/")[2]

    def check(self) -> None:
        """Raises RequestError naming the first file that is missing or damaged."""
        for name, sha256 in self.header.files.items():
            if not self.store.exists(name):
                raise _missing(self.store.path(name))
            with self.store.as_local_file(name) as path:
                _verify_file(path, sha256, self.store.path(name))

    @contextlib.contextmanager
    def local_directory(self) -> Iterator[Path]:
        """Every file, verified, below a local path (itself, or a copy of an object store's).

        Raises RequestError naming the first file that is missing or damaged.
        """
        if self.store.is_local:
            verify_files(Path(self.store.uri), self.header.files, self.store.uri)
            yield Path(self.store.uri)
            return
        with tempfile.TemporaryDirectory(prefix="i2vgen-checkpoint-") as folder:
            for name in (*self.header.files, HEADER_FILE):
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.store.read_bytes(name))
            verify_files(Path(folder), self.header.files, self.store.uri)
            yield Path(folder)


def latest_checkpoint(checkpoints: Store) -> Checkpoint | None:
    """The one that latest.json names, or None where there is none. Raises RequestError."""
    if not checkpoints.exists(LATEST_FILE):
        return None
    return _read(Store(checkpoints.path(read_latest(checkpoints)["checkpoint"])))


def open_checkpoint(uri: str, stage: str, flag: str) -> Checkpoint:
    """A checkpoint given by its own directory or by the folder of all (then the newest).

    Raises RequestError naming `flag` when there is none, or it is of another stage.
    """
    store = Store.open(uri)
    if store.exists(HEADER_FILE):
        checkpoint = _read(store)
    else:
        found = latest_checkpoint(store)
        if found is None:
            raise RequestError(
                f"{flag} {uri}: no checkpoint there (neither {HEADER_FILE} nor {LATEST_FILE}); "
                f"train one with `python jobs/train_{stage}.py`"
            )
        checkpoint = found
    if checkpoint.header.stage != stage:
        raise RequestError(
            f"{flag} {uri}: this is a checkpoint of the {checkpoint.header.stage} stage; "
            f"give one of the {stage} stage"
        )
    return checkpoint


def read_latest(checkpoints: Store) -> dict[str, Any]:
    """latest.json, which must be there. Raises RequestError."""
    try:
        latest = unsealed(checkpoints.read_bytes(LATEST_FILE))
        if not isinstance(latest["checkpoint"], str):
            raise ValueError("`checkpoint` is no name")
    except (ValueError, KeyError) as error:
        raise RequestError(
            f"{checkpoints.path(LATEST_FILE)}: not readable ({error}); restore it, or remove it "
            "to start over"
        ) from error
    return latest


def _read(store: Store) -> Checkpoint:
    where = store.path(HEADER_FILE)
    if not store.exists(HEADER_FILE):
        raise RequestError(f"{where}: missing; the checkpoint is not complete, use another one")
    try:
        plain = unsealed(store.read_bytes(HEADER_FILE))
        header = CheckpointHeader(**{**plain, "size_px": tuple(plain["size_px"])})
        if not (len(header.size_px) == 2 and all(side >= 1 for side in header.size_px)):
            raise ValueError(f"size_px is {header.size_px}")
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{where}: not readable as a checkpoint ({error})") from error
    if header.schema_version != SCHEMA_VERSION:
        raise RequestError(
            f"{where}: schema version {header.schema_version}, this code reads {SCHEMA_VERSION}"
        )
    if digest_of_files(header.files) != header.digest:
        raise RequestError(f"{where}: damaged (its digest does not match its list of files)")
    return Checkpoint(store, header)


def verify_files(folder: Path, files: dict[str, str], shown: str) -> None:
    """Raises RequestError naming the first file that is missing or damaged, as in `shown`."""
    for name, sha256 in files.items():
        if not (folder / name).is_file():
            raise _missing(f"{shown}/{name}")
        _verify_file(folder / name, sha256, f"{shown}/{name}")


def _verify_file(path: Path, sha256: str, shown: str) -> None:
    if sha256_of_file(path) != sha256:
        raise RequestError(
            f"{shown}: damaged, its sha256 is not the one in {HEADER_FILE}; use another checkpoint"
        )


def _missing(shown: str) -> RequestError:
    return RequestError(f"{shown}: missing (thinned, or lost); use a newer checkpoint")


def digest_of_files(files: dict[str, str]) -> str:
    text = json.dumps(sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
