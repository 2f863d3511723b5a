"""The checker sees what it is there for: one thing is broken at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.checker import (
    checkpoint_violations,
    dataset_violations,
    latents_violations,
    run_violations,
)
from tests.chaos.jobs_under_faults import STEPS, World

pytestmark = pytest.mark.slow

Break = Callable[[Path], object]
Rows = list[dict[str, Any]]


def rows_changed(table: str, change: Callable[[Rows], object]) -> Break:
    def broken(folder: Path) -> None:
        found = pq.read_table(folder / table)
        rows = found.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=found.schema), folder / table)
        for name in ("dataset.json", "latents.json"):  # or its hashes would say it all
            if (folder / name).exists():
                json_changed(name, lambda v: (v.pop("seal"), v.update(files={})))(folder)

    return broken


def first_kept(rows: Rows) -> dict[str, Any]:
    return next(row for row in rows if row["verdict"] == "kept")


def json_changed(name: str, change: Callable[[dict[str, Any]], object]) -> Break:
    def broken(folder: Path) -> None:
        (path,) = folder.glob(name)
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return broken


def flipped(pattern: str) -> Break:
    def broken(folder: Path) -> None:
        path = sorted(folder.glob(pattern))[-1]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return broken


def added(name: str) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")

    return broken


def removed(pattern: str) -> Break:
    return lambda folder: sorted(folder.glob(pattern))[-1].unlink()


def found_after(
    broken: Break, whole: Path, place: Path, look: Callable[[Path], list[str]]
) -> list[str]:
    shutil.copytree(whole, place)
    assert look(place) == []
    broken(place)
    return look(place)


DATASET: dict[str, tuple[Break, str]] = {
    "input lost": (rows_changed("sources.parquet", lambda r: r.pop()), "is named 0 times, not 1"),
    "input twice": (rows_changed("sources.parquet", lambda r: r.append(r[0])), "times, not 1"),
    "status without a reason": (
        rows_changed("sources.parquet", lambda r: r[0].update(status="failed", reason="bad luck")),
        "is failed, bad luck",
    ),
    "clip twice": (rows_changed("clips.parquet", lambda r: r.append(r[0])), "occurs twice"),
    "shot lost": (
        rows_changed("clips.parquet", lambda r: r.remove(max(r, key=lambda c: c["start_frame"]))),
        "do not tile it",
    ),
    "kept and in no shard": (
        rows_changed("clips.parquet", lambda r: first_kept(r).update(shard=None)),
        "is kept, None",
    ),
    "dropped without a reason": (
        rows_changed("clips.parquet", lambda r: first_kept(r).update(verdict="dropped")),
        "is dropped, None",
    ),
    "another caption": (
        rows_changed("clips.parquet", lambda r: first_kept(r).update(caption="what is not there")),
        "the clips give",
    ),
    "wrong count": (
        json_changed("dataset.json", lambda v: v["counts"].update(kept=99)),
        "not those that were written",
    ),
    "wrong count, sealed": (
        json_changed("dataset.json", lambda v: (v["counts"].update(kept=99), v.pop("seal"))),
        "kept is 99, the tables say",
    ),
    "flipped bit in a shard": (flipped("shards/*.tar"), "sha256 differs"),
    "flipped bit in a table": (flipped("sources.parquet"), "not the bytes that were named"),
    "shard lost": (removed("shards/*.tar"), ": missing"),
    "shard too many": (added("shards/shard-99999.tar"), "does not name"),
    "half a shard": (added("shards/.tmp-1-shard-00000.tar"), "half-written"),
    "scratch left": (added("_work/cuts/clip.mp4"), "_work: nothing names it"),
    "half a table": (added(".tmp-1-clips.parquet"), "nothing names it"),
    "no dataset.json": (removed("dataset.json"), "no dataset.json there"),
}


@pytest.mark.parametrize("name", DATASET)
def test_a_dataset(world: World, tmp_path: Path, name: str) -> None:
    broken, expected = DATASET[name]
    found = found_after(
        broken,
        world.undisturbed / "set",
        tmp_path / "set",
        lambda folder: dataset_violations(folder, world.footage),
    )
    assert any(expected in line for line in found), found


def test_a_dataset_that_is_whole_and_another(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.undisturbed / "set", tmp_path / "set")
    (tmp_path / "undisturbed" / "shards").mkdir(parents=True)
    found = dataset_violations(tmp_path / "set", world.footage, tmp_path / "undisturbed")
    assert len(found) >= 5 and all("not the bytes of the undisturbed run" in line for line in found)


LATENTS: dict[str, tuple[Break, str]] = {
    "flipped bit": (flipped("packs/*"), "not the bytes that were named"),
    "pack lost": (removed("packs/*"), ": missing"),
    "pack too many": (added("packs/pack-99999.safetensors"), "nothing names it"),
    "commit too many": (added("_work/pack-99999.json"), "nothing names it"),
    "half a pack": (added("packs/.tmp-1-pack-00000.safetensors"), "half-written"),
    "clip lost": (rows_changed("index.parquet", lambda r: r.pop()), "is there 0 times, not 1"),
    "clip twice": (rows_changed("index.parquet", lambda r: r.append(r[0])), "2 times, not 1"),
    "of another dataset": (
        json_changed("latents.json", lambda v: v["dataset"].update(digest="0")),
        "made of another dataset",
    ),
    "no latents.json": (removed("latents.json"), "no latents.json"),
}


@pytest.mark.parametrize("name", LATENTS)
def test_latents(world: World, tmp_path: Path, name: str) -> None:
    broken, expected = LATENTS[name]
    dataset = world.undisturbed / "set"
    found = found_after(
        broken,
        world.undisturbed / "latents",
        tmp_path / "latents",
        lambda folder: latents_violations(folder, dataset),
    )
    assert any(expected in line for line in found), found


NEWEST = f"step-{STEPS:08d}"
CHECKPOINTS: dict[str, tuple[Break, str]] = {
    "flipped bit": (flipped(f"{NEWEST}/ema/*.safetensors"), "not the bytes that were named"),
    "file lost": (removed(f"{NEWEST}/trainer.json"), "trainer.json"),
    "file too many": (added(f"{NEWEST}/notes.txt"), "notes.txt, or lacks it"),
    "newest not named": (
        json_changed("latest.json", lambda v: v.update(checkpoint="step-00000002", step=2)),
        "the newest is",
    ),
    "not trained to the end": (json_changed("latest.json", lambda v: v.update(step=2)), "step 2"),
    "no checkpoint.json": (removed(f"{NEWEST}/checkpoint.json"), "no checkpoint.json"),
    "parent lost": (
        lambda folder: shutil.rmtree(folder / "step-00000004"),
        "its parent step-00000004 is not there",
    ),
    "half a checkpoint": (added(".tmp-step-00000008-1/trainer.json"), "nothing names it"),
    "notes of Ray's": (added("_ray/notes"), "nothing names it"),
    "nothing": (removed("latest.json"), "no latest.json"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(world: World, tmp_path: Path, name: str) -> None:
    broken, expected = CHECKPOINTS[name]
    found = found_after(
        broken,
        world.undisturbed / "checkpoints",
        tmp_path / "checkpoints",
        lambda folder: checkpoint_violations(folder, STEPS),
    )
    assert any(expected in line for line in found), found


def test_runs_that_name_what_is_not_there(world: World) -> None:
    uri = f"sqlite:///{world.undisturbed / 'mlflow.db'}"
    outputs = [world.undisturbed / name for name in ("set", "latents", "checkpoints")]
    assert run_violations(uri, outputs) == []
    found = run_violations(uri, outputs[1:])
    assert found and all("dataset.digest" in line for line in found)
