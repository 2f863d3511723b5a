"""Everything that is published by this project, in miniature: the real writers, tiny contents.

Each of `PUBLISHING` can be run, killed anywhere, and run again in the same folder. `violations`
says what is wrong with what a reader may see at any moment, `result` what came of it in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.config import RequestError
from pipelines.curation.config import CurateConfig
from pipelines.curation.publish import (
    publish_dataset,
    publish_tables,
    remove_scratch,
    tidy_complete,
)
from pipelines.curation.taken_down import TakenDown
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.spool.attachments import Attachments
from pipelines.lineage.spool.files import SpoolFolder, folders_below, store_folder, undelivered
from pipelines.lineage.takedown import take_down
from pipelines.lineage.takedown_list import resolve_targets
from pipelines.lineage.wholeness import check_dataset
from pipelines.records import Shard
from pipelines.storage import Store
from pipelines.storage.writer_lock import writer_lock
from pipelines.training.checkpoints.checkpoint import CheckpointHeader, latest_checkpoint
from pipelines.training.checkpoints.publishing import (
    mark_finished,
    publish_checkpoint,
    thin_old_checkpoints,
)
from pipelines.training.latents.on_disk import open_latents, remove_leftovers
from pipelines.training.latents.pack_check import problems_of
from tests.pipelines.lineage import small_world
from tests.pipelines.training.synthetic_latents import write_latents

TABLE = pa.table({"clip_id": ["a", "b"], "caption": ["a red circle", "a blue square"]})


@dataclass(frozen=True)
class Publishing:
    """`run(folder)`, `violations(folder)`, `result(folder)`; see above."""

    name: str
    run: Callable[[Path], None]
    violations: Callable[[Path], list[str]]
    result: Callable[[Path], Any]


def tree(folder: Path) -> dict[str, str]:
    """The sha256 of every file below, half-written ones too."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- a commit, a table ---------------------------------------------------------------------------


def write_commit(folder: Path) -> None:
    store = Store.open(str(folder))
    store.write_table("_work/watch/key/source.parquet", TABLE)
    store.write_json("named.json", {"table": "source.parquet"})
    store.remove_temporaries()


def commit_violations(folder: Path) -> list[str]:
    store = Store(str(folder))
    if store.exists("named.json"):
        store.read_json("named.json")
        return (
            [] if store.exists("_work/watch/key/source.parquet") else ["named before it was there"]
        )
    for name in store.list_files():
        if not store.read_table(name).equals(TABLE):
            return [f"{name}: half a table"]
    return []


# --- latents -------------------------------------------------------------------------------------


def publish_latents(folder: Path) -> None:
    write_latents(folder, lengths=[1, 5, 9, 1], clips_per_pack=2)
    remove_leftovers(Store(str(folder)))


def latents_violations(folder: Path) -> list[str]:
    if not (folder / "latents.json").exists():
        return []
    latents = open_latents(str(folder), "base")
    return problems_of(latents.store, latents.packs.values())


# --- checkpoints ---------------------------------------------------------------------------------

STEPS = (4, 8, 12)


def publish_checkpoints(folder: Path) -> None:
    store = Store.open(str(folder))
    newest = latest_checkpoint(store)
    for step in STEPS:
        if newest is None or newest.header.step < step:
            newest = publish_checkpoint(store, step, _fill(step), _header(step))
            thin_old_checkpoints(store, keep=1)
    thin_old_checkpoints(store, keep=1)
    mark_finished(store, True)


def _fill(step: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        for name in ("unet/config.json", "trainer.json", "lineage.parquet", "README.md"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} of step {step}")

    return fill


def _header(step: int) -> Callable[[dict[str, str], str], CheckpointHeader]:
    def make(files: dict[str, str], digest: str) -> CheckpointHeader:
        named = {"uri": "nowhere", "digest": "0" * 32}
        return CheckpointHeader(
            schema_version=1, digest=digest, stage="base", step=step, phase="joint",
            finished=step == STEPS[-1], loss=0.5, samples_seen=step, parent=None, base=None,
            latents=named, dataset=named, encoders={}, size_px=(24, 16), preset="demo", model={},
            diffusion={}, phases=[], config={"rate": 1e-05}, config_hash="2", identity="3",
            files=files,
        )  # fmt: skip

    return make


def seen_checkpoint_violations(folder: Path) -> list[str]:
    newest = latest_checkpoint(Store(str(folder)))
    if newest is not None:
        newest.check()
    return []


# --- a dataset -----------------------------------------------------------------------------------

FILMS = ("alpha.mp4", "beta.mp4")


def publish_curated(folder: Path) -> None:
    """The tables and shards of a small dataset, as the end of a curation publishes them."""
    config = CurateConfig(footage=str(folder.parent / "footage"), dataset=str(folder))
    store = Store(str(folder))
    tidy_complete(store)
    if store.exists("dataset.json"):
        return
    with writer_lock(store):
        store.remove_temporaries()
        store.write_bytes("_work/cuts/key/source/clip.mp4", b"a cut that waits for its shard")
        before = read_dataset(str(write_parent(folder)))
        shards = [Shard(**row) for row in before.shards.to_pylist()]
        for shard in shards:
            name = f"shards/{shard.shard}"
            store.write_bytes(name, before.store.read_bytes(name))
        manifest = {**before.manifest, "config": {"rate": 1e-05}}
        sources, clips = before.sources, before.clips
        sizes = (sources.num_rows, clips.num_rows)
        publish_tables(store, [sources], [clips], shards, TakenDown(), *sizes)
        publish_dataset(store, config, manifest, "a report")
        remove_scratch(store, Store(str(folder.parent / "_work")))


def same_anywhere(folder: Path) -> dict[str, str]:
    """All but the file that says where it lies."""
    return {name: sha256 for name, sha256 in tree(folder).items() if name != "origin.json"}


# --- a takedown ----------------------------------------------------------------------------------


def write_parent(folder: Path) -> Path:
    """The dataset that is taken from, beside `folder`."""
    parent = folder.parent / "parent"
    if not (parent / "dataset.json").exists():
        small_world.write_dataset(parent, FILMS, small_world.make_clips(FILMS), shard_samples=4)
    return parent


def publish_takedown(folder: Path) -> None:
    before = read_dataset(str(write_parent(folder)))
    one_clip = before.clips.filter(pa.compute.equal(before.clips["verdict"], "kept"))["clip_id"][0]
    try:
        take_down(before, resolve_targets(before, [one_clip.as_py()]), str(folder))
    except RequestError as error:
        if "holds a complete dataset" not in str(error):
            raise


def dataset_violations(folder: Path) -> list[str]:
    return check_dataset(str(folder)) if (folder / "dataset.json").exists() else []


# --- records that wait for MLflow ----------------------------------------------------------------

RECORDS, STORE, PROJECT = 4, "sqlite:////nowhere/mlflow.db", "chaos"


def spool_records(folder: Path) -> None:
    """Sends what earlier processes left, then records, tells the caller of each record, sends."""
    root = folder / "spool"
    for left in folders_below(store_folder(root, STORE, PROJECT)):
        if (dead := SpoolFolder.take(left)) is not None:
            _send(dead, folder)
    spool = SpoolFolder.create(root, STORE, PROJECT)
    for number in range(RECORDS):
        spool.append({"op": "metric", "number": number})
        _note(folder / "acknowledged", number)
    spool.sync()
    Attachments(spool.path).keep_bytes("run", b"a report", "report.html")
    _send(spool, folder)


def _send(spool: SpoolFolder, folder: Path) -> None:
    while lines := spool.read():
        for line in lines:
            _note(folder / "delivered", line.record["number"])
        spool.mark(lines[-1].end)
    files = Attachments(spool.path)
    for attachment in files.waiting():
        assert attachment.file.read_bytes() == b"a report"
        files.delivered(attachment)
    spool.remove()


def _note(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(f"{number}\n")


def _noted(path: Path) -> set[int]:
    return set(map(int, path.read_text().split())) if path.exists() else set()


def lost_records(folder: Path) -> list[str]:
    waiting = {r["number"] for r in undelivered(folder / "spool", STORE, PROJECT)}
    lost = _noted(folder / "acknowledged") - _noted(folder / "delivered") - waiting
    return [f"record {number} was acknowledged and is nowhere" for number in sorted(lost)]


def spooled(folder: Path) -> Any:
    left = sorted(p.name for p in store_folder(folder / "spool", STORE, PROJECT).iterdir())
    return [sorted(_noted(folder / "delivered")), left]


PUBLISHING = [
    Publishing("commit", write_commit, commit_violations, tree),
    Publishing("latents", publish_latents, latents_violations, tree),
    Publishing("checkpoints", publish_checkpoints, seen_checkpoint_violations, tree),
    Publishing("dataset", publish_curated, dataset_violations, same_anywhere),
    Publishing("takedown", publish_takedown, dataset_violations, tree),
    Publishing("spool", spool_records, lost_records, spooled),
]
