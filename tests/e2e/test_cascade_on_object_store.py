"""The whole cascade where footage and results lie in an object store, killed once on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.footage import write_world
from pipelines.lineage.wholeness import check_dataset
from pipelines.media import probe
from pipelines.storage import Store
from tests.conftest import REPOSITORY, Ended, run_job
from tests.servers.faulty_store import Faults, FaultyStore
from tests.servers.object_store import ObjectStore, environment_at
from tests.servers.objects_here import objects

__all__ = ["objects"]

pytestmark = pytest.mark.slow

FEW_STEPS = ("--steps", "1", "--refine_steps", "1", "--premium_steps", "0")
MOST_REQUESTS_OF_A_DONE_ONE = 400  # nearly all are asked for the page of the video's past
KEYS = ("dataset", "latents", "base", "refine", "video", "report")


def command(objects: ObjectStore, home: Path) -> tuple[str, ...]:
    place = ("--footage", f"{objects.uri}/films", "--out", f"{objects.uri}/out")
    quickly = home / "generate.yaml"
    quickly.write_text("base_steps: 4\nrefine_steps: 3\n")
    steps = (*FEW_STEPS, "--generate_config", str(quickly))
    return ("jobs/cascade.py", *place, *steps, "--tracking.uri", f"sqlite:///{home}/mlflow.db")


def test_all_of_it_lies_there_and_a_killed_run_goes_on(
    objects: ObjectStore, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    write_world(tmp_path / "world", preset="small", real_clips=False, broken=False)
    films = sorted((tmp_path / "world").rglob("*.mp4"), key=lambda p: p.stat().st_size)
    for film in films[:5]:
        shutil.copy(film, few / film.name)
    objects.put_folder(few, f"{objects.uri}/films")
    _kill_when_the_dataset_is_there(objects, tmp_path)
    ended = run_job(*command(objects, tmp_path))
    assert ended.code == 0, ended.err[-4000:]
    assert "curate the footage: already done" in ended.err
    _check(objects, ended, tmp_path)
    _check_that_a_done_one_asks_little(objects, ended, tmp_path)


def _kill_when_the_dataset_is_there(objects: ObjectStore, home: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, *command(objects, home)], cwd=REPOSITORY, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline_s = time.monotonic() + 900
        while not any(name.endswith("/dataset.json") for name in objects.names()):
            assert first.poll() is None and time.monotonic() < deadline_s
            time.sleep(1)
        time.sleep(5)  # well into the next job
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def _check(objects: ObjectStore, ended: Ended, tmp_path: Path) -> None:
    for key in KEYS:
        places = ended.result[key] if isinstance(ended.result[key], list) else [ended.result[key]]
        for uri in places:
            assert uri.startswith(f"{objects.uri}/out/") and Store.open(uri).exists("")
    assert check_dataset(ended.result["dataset"]) == []
    folder, _, name = ended.result["video"].rpartition("/")
    video = tmp_path / name
    video.write_bytes(Store.open(folder).read_bytes(name))
    assert probe(video).width_px > 0
    asked = run_job("jobs/trace.py", "video", ended.result["video"], "--json", "--under", folder)
    assert asked.code == 0, asked.err
    taught_by = {checkpoint["uri"] for checkpoint in asked.result["checkpoints"].values()}
    assert taught_by == {ended.result["base"], ended.result["refine"]}


def _check_that_a_done_one_asks_little(objects: ObjectStore, ended: Ended, home: Path) -> None:
    with FaultyStore(objects.endpoint, Faults(), seed=0) as counted:
        again = run_job(*command(objects, home), **environment_at(counted.endpoint))
    assert again.code == 0 and again.err.count("already done") == 6, again.err
    listings = [p for m, p in counted.requests if m == "GET" and "prefix=films" in p]
    assert len(listings) == 1
    print(f"{len(counted.requests)} requests to find all of it done")
    assert len(counted.requests) <= MOST_REQUESTS_OF_A_DONE_ONE
    assert {key: again.result[key] for key in KEYS} == {key: ended.result[key] for key in KEYS}
