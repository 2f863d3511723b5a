"""Checkpoints: published whole or not at all, every file named by its sha256, no pickle.

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
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.storage import TEMPORARY_PREFIX, Store, fsync_path, sha256_of_file

SCHEMA_VERSION = 1
HEADER_FILE = "checkpoint.json"
LATEST_FILE = "latest.json"
KEPT_WHEN_THINNED = (HEADER_FILE, "lineage.parquet", "README.md")


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

    @contextlib.contextmanager
    def local_directory(self) -> Iterator[Path]:
        """Every file, verified, below a local path (itself, or a copy of an object store's).

        Raises RequestError naming the first file that is missing or damaged.
        """
        if self.store.is_local:
            _verify(Path(self.store.uri), self.header.files, self.store.uri)
            yield Path(self.store.uri)
            return
        with tempfile.TemporaryDirectory(prefix="i2vgen-checkpoint-") as folder:
            for name in (*self.header.files, HEADER_FILE):
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.store.read_bytes(name))
            _verify(Path(folder), self.header.files, self.store.uri)
            yield Path(folder)


def directory_name(step: int) -> str:
    return f"step-{step:08d}"


# --- writing -------------------------------------------------------------------------------


def publish_checkpoint(
    checkpoints: Store,
    step: int,
    fill: Callable[[Path], None],
    make_header: Callable[[dict[str, str], str], CheckpointHeader],
) -> Checkpoint:
    """Writes the files with `fill(folder)`, then the header, then latest.json.

    `make_header(files, digest)` builds the header from the hashes. Locally all of it is made in a
    hidden folder, synced to disk and renamed; a checkpoint counts once latest.json names it. What
    an earlier run was making when it was killed is removed: it is as large as a checkpoint.
    An OSError (disk full) leaves the checkpoints that were there as they were.
    """
    name = directory_name(step)
    if checkpoints.is_local:
        Path(checkpoints.uri).mkdir(parents=True, exist_ok=True)
        for unfinished in Path(checkpoints.uri).glob(f"{TEMPORARY_PREFIX}step-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        staging = Path(checkpoints.path(f"{TEMPORARY_PREFIX}{name}-{uuid.uuid4().hex[:8]}"))
        staging.mkdir()
    else:
        staging = Path(tempfile.mkdtemp(prefix="i2vgen-checkpoint-"))
    try:
        fill(staging)
        files = _hash_files(staging)
        header = make_header(files, digest_of_files(files))
        text = json.dumps(asdict(header), indent=2, sort_keys=True)
        (staging / HEADER_FILE).write_text(text + "\n")
        _move_into_place(staging, checkpoints, name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    latest = {
        "checkpoint": name,
        "step": step,
        "digest": header.digest,
        "finished": header.finished,
    }
    checkpoints.write_json(LATEST_FILE, latest)
    return Checkpoint(Store(checkpoints.path(name)), header)


def digest_of_files(files: dict[str, str]) -> str:
    text = json.dumps(sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def mark_finished(checkpoints: Store, finished: bool) -> None:
    """Says in latest.json whether the newest checkpoint is the last that was asked for."""
    latest = checkpoints.read_json(LATEST_FILE)
    checkpoints.write_json(LATEST_FILE, {**latest, "finished": finished})


def thin_old_checkpoints(checkpoints: Store, keep: int) -> None:
    """Leaves the newest `keep` whole (0: all) and of older ones what lineage needs."""
    names = {f.split("/")[0] for f in checkpoints.list_files() if f.startswith("step-")}
    for name in sorted(names)[:-keep] if keep else []:
        for file in checkpoints.list_files(name):
            if file.removeprefix(f"{name}/") not in KEPT_WHEN_THINNED:
                checkpoints.remove(file)


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_of_file(p) for p in files}


def _move_into_place(staging: Path, checkpoints: Store, name: str) -> None:
    files = sorted(p for p in staging.rglob("*") if p.is_file())
    if not checkpoints.is_local:
        # The header goes last: it says that all the others are there.
        for path in sorted(files, key=lambda p: (p.name == HEADER_FILE, p)):
            with checkpoints.publishing(f"{name}/{path.relative_to(staging)}") as temporary:
                shutil.copyfile(path, temporary)
        return
    for path in files:
        fsync_path(path)
    for folder in [p for p in staging.rglob("*") if p.is_dir()] + [staging]:
        fsync_path(folder)
    # One left by a run that was killed between the rename and latest.json: it never counted.
    checkpoints.remove(name)
    os.rename(staging, checkpoints.path(name))
    fsync_path(Path(checkpoints.uri))


# --- reading -------------------------------------------------------------------------------


def latest_checkpoint(checkpoints: Store) -> Checkpoint | None:
    """The one that latest.json names, or None where there is none. Raises RequestError."""
    if not checkpoints.exists(LATEST_FILE):
        return None
    try:
        name = str(checkpoints.read_json(LATEST_FILE)["checkpoint"])
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{checkpoints.path(LATEST_FILE)}: not readable ({error}); restore it, or remove it "
            "to start over"
        ) from error
    return _read(Store(checkpoints.path(name)))


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


def _read(store: Store) -> Checkpoint:
    where = store.path(HEADER_FILE)
    if not store.exists(HEADER_FILE):
        raise RequestError(f"{where}: missing; the checkpoint is not complete, use another one")
    try:
        plain = store.read_json(HEADER_FILE)
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


def _verify(folder: Path, files: dict[str, str], shown: str) -> None:
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file():
            raise RequestError(
                f"{shown}/{name}: missing (thinned, or lost); use a newer checkpoint"
            )
        if sha256_of_file(path) != sha256:
            raise RequestError(
                f"{shown}/{name}: damaged, its sha256 is not the one in {HEADER_FILE}; "
                "use another checkpoint"
            )
