"""Damage anywhere in what a job reads is refused before its first step, naming the file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.config import RequestError
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.takedown import take_down
from pipelines.lineage.takedown_list import resolve_targets
from pipelines.training.checkpoints.checkpoint import open_checkpoint
from pipelines.training.config import EncodeConfig
from pipelines.training.latents import encode_plan, pack_check
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.latents.shard_members import Shards
from tests.chaos.damage import KINDS, damaged
from tests.chaos.publishing import publish_curated
from tests.conftest import run_job
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import base_request, refine_request, train_here

TIMES = 10  # of each kind, in each file
SEED = 0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "set"
    publish_curated(folder)
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    write_latents(folder / "base")
    write_latents(folder / "refine", "refine")
    return folder


@pytest.fixture(scope="module")
def checkpoints(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    train_here(base_request(latents / "base", folder, 2, checkpoint_every=2))
    return folder


Open = Callable[[], object]


def refuse_all_damage(files: list[Path], open_it: Open) -> None:
    """Whatever is done to any of the files, `open_it` raises RequestError with its name in it."""
    open_it()
    assert files
    for path in files:
        rng = random.Random(f"{SEED} {path.name}")
        for kind in KINDS:
            for _ in range(TIMES):
                with damaged(path, rng, kind) as done:
                    try:
                        open_it()
                    except RequestError as error:
                        assert path.name in str(error), done
                    else:
                        pytest.fail(f"{done}: taken as it is")
    open_it()


def test_what_is_encoded(dataset: Path, tmp_path: Path) -> None:
    config = EncodeConfig(dataset=str(dataset), latents=str(tmp_path / "latents"))
    tables = [dataset / f"{name}.parquet" for name in ("clips", "shards")]
    refuse_all_damage([dataset / "dataset.json", *tables], lambda: encode_plan.prepare(config))

    def read_shards() -> None:
        shards = Shards(str(dataset))
        for task in encode_plan.prepare(config).tasks:
            shards.members(task.shard, task.shard_sha256)
        shards.close()

    refuse_all_damage(sorted((dataset / "shards").iterdir()), read_shards)


def test_what_is_trained_on(latents: Path) -> None:
    def open_as_training_does() -> None:
        pack_check.check_packs(open_latents(str(latents / "base"), "base"))

    tables = [latents / "base" / f"{name}.parquet" for name in ("index", "packs")]
    packs = sorted((latents / "base" / "packs").iterdir())
    header = latents / "base" / "latents.json"
    refuse_all_damage([header, *tables, *packs], open_as_training_does)


def test_what_training_goes_on_from(latents: Path, checkpoints: Path) -> None:
    (folder,) = checkpoints.glob("step-*")
    files = [checkpoints / "latest.json", *(p for p in folder.rglob("*") if p.is_file())]
    refuse_all_damage(files, lambda: base_request(latents / "base", checkpoints, 4))


def test_what_the_refinement_and_a_video_start_from(
    latents: Path, checkpoints: Path, tmp_path: Path
) -> None:
    (folder,) = checkpoints.glob("step-*")
    files = [p for p in folder.rglob("*") if p.is_file()]

    def start_refining() -> None:
        refine_request(latents / "refine", tmp_path, checkpoints, 1, 0)

    def load() -> None:
        with open_checkpoint(str(folder), "base", "--base").local_directory():
            pass

    refuse_all_damage(files, start_refining)
    refuse_all_damage(files, load)


def test_what_a_takedown_would_copy(dataset: Path, tmp_path: Path) -> None:
    """Rewritten from damaged ones, tables and shards would get hashes that fit."""
    before = read_dataset(str(dataset))
    (first, *_) = before.clips.filter(before.clips["shard"].is_valid()).to_pylist()

    def take_one_down() -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        again = read_dataset(str(dataset))
        take_down(again, resolve_targets(again, [first["clip_id"]]), str(tmp_path / "out"))

    refuse_all_damage([dataset / "shards" / first["shard"]], take_one_down)
    tables = [dataset / f"{name}.parquet" for name in ("sources", "clips", "shards")]
    for table in tables:
        with damaged(table, random.Random(SEED)), pytest.raises(RequestError, match=table.name):
            take_down(before, resolve_targets(before, [first["clip_id"]]), str(tmp_path / "out"))


@pytest.mark.slow
def test_a_job_says_it_in_one_line(dataset: Path, latents: Path, tmp_path: Path) -> None:
    """Shards and packs are looked at when Ray is up."""
    shards = list((dataset / "shards").iterdir())  # which one is read first is not said
    packs = list((latents / "base" / "packs").iterdir())
    encode = ["jobs/encode.py", "--dataset", dataset, "--latents", tmp_path / "l"]
    train = ["jobs/train_base.py", "--latents", latents / "base", "--checkpoints", tmp_path / "c"]
    quiet = ("--tracking.enabled", "false", "--cluster.address", "local")
    for paths, job in ((shards, encode), (packs, train)):
        with ExitStack() as all_damaged:
            for path in paths:
                all_damaged.enter_context(damaged(path, random.Random(SEED)))
            ended = run_job(*job, *quiet)
        assert ended.code == 2, ended.err
        (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert any(path.name in line for path in paths) and "Traceback" not in ended.err
    assert not list(tmp_path.rglob("*.safetensors")) and not (tmp_path / "c/latest.json").exists()
