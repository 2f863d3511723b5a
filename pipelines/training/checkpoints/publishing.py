"""Checkpoints appear whole or not at all, and old ones are thinned. For the one writer there is."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pipelines.config import RequestError
from pipelines.failpoints import failpoint
from pipelines.storage import Store, sha256_of_file
from pipelines.storage.durable_files import TEMPORARY_PREFIX, fsync_path, make_folder
from pipelines.storage.seal import sealed_bytes, unsealed
from pipelines.training.checkpoints.checkpoint import (
    HEADER_FILE,
    LATEST_FILE,
    Checkpoint,
    CheckpointHeader,
    digest_of_files,
    read_latest,
    verify_files,
)

KEPT_WHEN_THINNED = (HEADER_FILE, "lineage.parquet", "README.md")


def directory_name(step: int) -> str:
    return f"step-{step:08d}"


def publish_checkpoint(
    checkpoints: Store,
    step: int,
    fill: Callable[[Path], None],
    make_header: Callable[[dict[str, str], str], CheckpointHeader],
) -> Checkpoint:
    """Writes the files with `fill(folder)`, then the header, then latest.json.

    `make_header(files, digest)` builds the header from the hashes. Locally all of it is made in a
    hidden folder, synced to disk and renamed; a checkpoint counts once latest.json names it. What
    an earlier run was making when it was killed is removed: it is as large as a checkpoint, and
    thinning would take it for the newest.
    An OSError (disk full) leaves the checkpoints that were there as they were.
    """
    name = directory_name(step)
    _remove_uncounted(checkpoints, name)
    if checkpoints.is_local:
        make_folder(Path(checkpoints.uri))
        _remove_unfinished(checkpoints)
        staging = Path(checkpoints.path(f"{TEMPORARY_PREFIX}{name}-{uuid.uuid4().hex[:8]}"))
        staging.mkdir()
    else:
        staging = Path(tempfile.mkdtemp(prefix="i2vgen-checkpoint-"))
    try:
        failpoint("checkpoint.before_fill")
        fill(staging)
        failpoint("checkpoint.before_header")
        files = _hash_files(staging)
        header = make_header(files, digest_of_files(files))
        (staging / HEADER_FILE).write_bytes(sealed_bytes(asdict(header)))
        _move_into_place(staging, checkpoints, name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    latest = {
        "checkpoint": name,
        "step": step,
        "digest": header.digest,
        "finished": header.finished,
    }
    failpoint("checkpoint.before_latest")
    checkpoints.write_bytes(LATEST_FILE, sealed_bytes(latest))
    failpoint("checkpoint.after_latest")
    return Checkpoint(Store(checkpoints.path(name)), header)


def mark_finished(checkpoints: Store, finished: bool) -> None:
    """Says in latest.json whether the newest checkpoint is the last that was asked for. Only for
    the one writer there is."""
    latest = read_latest(checkpoints)
    _remove_unfinished(checkpoints)
    checkpoints.write_bytes(LATEST_FILE, sealed_bytes({**latest, "finished": finished}))


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
    failpoint("checkpoint.before_fsync")
    for path in files:
        fsync_path(path)
    for folder in [p for p in staging.rglob("*") if p.is_dir()] + [staging]:
        fsync_path(folder)
    if _is_there(Path(checkpoints.path(name)), staging):
        return  # latest.json may name it, when writing that only seemed to fail
    failpoint("checkpoint.before_remove")
    # One left by a run that was killed between the rename and latest.json: it never counted.
    checkpoints.remove(name)
    failpoint("checkpoint.before_rename")
    os.rename(staging, checkpoints.path(name))
    failpoint("checkpoint.before_folder_fsync")
    fsync_path(Path(checkpoints.uri))


def _is_there(place: Path, staging: Path) -> bool:
    header = place / HEADER_FILE
    if not header.is_file() or header.read_bytes() != (staging / HEADER_FILE).read_bytes():
        return False
    try:
        verify_files(place, unsealed(header.read_bytes())["files"], str(place))
    except RequestError:
        return False
    return True


def _remove_unfinished(checkpoints: Store) -> None:
    if not checkpoints.is_local:
        return
    for unfinished in Path(checkpoints.uri).glob(f"{TEMPORARY_PREFIX}*"):
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)


def _remove_uncounted(checkpoints: Store, coming: str) -> None:
    """Checkpoints that latest.json never named, but for one of the name that is coming."""
    if not checkpoints.exists(LATEST_FILE):
        return
    counted = read_latest(checkpoints)["checkpoint"]
    for name in checkpoints.list_folders():
        if name.startswith("step-") and name > counted and name != coming:
            checkpoints.remove(name)
