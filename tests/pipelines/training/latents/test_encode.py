"""Encoding through real Ray Data."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.storage import Store
from pipelines.training.config import EncodeConfig, EncodeWorkersConfig
from pipelines.training.feed.feed import Feed
from pipelines.training.latents.clip_encoder import ClipUnreadable
from pipelines.training.latents.encode import encode
from pipelines.training.latents.encode_plan import dry_run_report, prepare
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.stages import demo_base
from tests.conftest import REPOSITORY
from tests.pipelines.training.small_dataset import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "set")


@pytest.fixture(scope="module")
def undisturbed(dataset, local_ray, tmp_path_factory):
    """The dataset in packs of one clip, from one actor."""
    folder = tmp_path_factory.mktemp("undisturbed")
    workers = EncodeWorkersConfig(actors=1)
    return encode(prepare(config(dataset, folder, pack_clips=1, workers=workers)))


def config(dataset, latents, **changes) -> EncodeConfig:
    tracking = TrackingConfig(enabled=False)
    return EncodeConfig(dataset=str(dataset), latents=str(latents), tracking=tracking, **changes)


def contents(folder) -> dict[str, str]:
    return {
        name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
        for name in Store(str(folder)).list_files()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_dataset_becomes_latents_that_can_be_trained_on(dataset, tmp_path):
    result = encode(prepare(config(dataset, tmp_path / "one")))
    assert (result["clips"], result["reused"], result["packs"]) == (5, 0, 2)
    latents = open_latents(result["latents"], "base")
    assert latents.header.digest == result["digest"]
    assert latents.header.dataset["digest"] == "d" * 32
    assert latents.header.latent == "mean"
    feed = Feed(latents, demo_base().mixture, seed=0, tier="base")
    assert len({s.clip_id for step in range(20) for s in feed.samples(step)[1]}) == 5
    assert feed.read(0).latents_BCFHW.shape[-2:] == (16, 28)

    with pytest.raises(RequestError, match="already complete"):
        prepare(config(dataset, tmp_path / "one"))

    # As after an interruption: one pack committed, its neighbour and latents.json not.
    (tmp_path / "one" / "latents.json").unlink()
    kept, lost = sorted((tmp_path / "one" / "_work").iterdir())
    lost.unlink()
    pack = tmp_path / "one" / "packs" / f"{kept.stem}.safetensors"
    stamp = pack.stat().st_mtime_ns
    again = encode(prepare(config(dataset, tmp_path / "one")))
    assert again["digest"] == result["digest"]
    assert again["reused"] == 2
    assert pack.stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_any_number_of_actors_and_any_reuse_give_the_same_bytes(dataset, undisturbed, tmp_path):
    workers = EncodeWorkersConfig(actors=2, decoders=3)
    many = encode(prepare(config(dataset, tmp_path / "many", pack_clips=1, workers=workers)))
    assert many["reused"] == 0
    assert contents(tmp_path / "many") == contents(undisturbed["latents"])
    reuse = f"{tmp_path / 'many'},{undisturbed['latents']}"
    request = prepare(config(dataset, tmp_path / "reused", pack_clips=1, reuse=reuse))
    assert "would encode 0 clips and take over 5" in dry_run_report(request)
    assert encode(request)["reused"] == 5
    assert contents(tmp_path / "reused") == contents(undisturbed["latents"])


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("commits", [1, 3])
def test_a_job_that_is_killed_goes_on_and_ends_with_the_same_bytes(
    dataset, undisturbed, tmp_path, commits
):
    folder = tmp_path / "latents"
    _run_until_killed(dataset, folder, commits)
    left = len(list((folder / "_work").glob("pack-*.json")))
    assert commits <= left < 5
    assert not (folder / "latents.json").exists()
    (folder / "packs" / ".tmp-0-pack").write_bytes(b"what a writer that is killed leaves")
    result = encode(prepare(config(dataset, folder, pack_clips=1)))
    assert result["reused"] >= left
    assert result["digest"] == undisturbed["digest"]
    assert list(folder.rglob(".tmp-*")) == []
    assert contents(folder) == contents(undisturbed["latents"])


def _run_until_killed(dataset, folder, commits: int) -> None:
    """Starts the job as a user does; kill -9 for it and all below it once so many packs stand."""
    arguments = ["--dataset", dataset, "--latents", folder, "--pack-clips", 1]
    arguments += ["--workers.actors", 1, "--tracking.enabled", "false"]
    arguments += ["--cluster.address", "local", "--cluster.num_cpus", 2]
    command = [sys.executable, "jobs/encode.py", *map(str, arguments)]
    job = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    while len(list(folder.glob("_work/pack-*.json"))) < commits:
        assert job.poll() is None, job.stderr.read()[-2000:]
        time.sleep(0.005)
    family = [*psutil.Process(job.pid).children(recursive=True), psutil.Process(job.pid)]
    for process in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    job.wait()
    job.stderr.close()
    psutil.wait_procs(family, timeout=60)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_leftovers_of_an_unfinished_run_over_another_dataset_are_used_and_removed(
    dataset, undisturbed, tmp_path
):
    grown = write_dataset(tmp_path / "grown", shards=3)
    folder = tmp_path / "latents"
    encode(prepare(config(grown, folder)))
    for name in ("latents.json", "index.parquet", "packs.parquet"):
        (folder / name).unlink()
    result = encode(prepare(config(dataset, folder, pack_clips=1)))
    assert result["reused"] == 5
    assert contents(folder) == contents(undisturbed["latents"])


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_damaged_shard_ends_the_job_in_one_line(tmp_path):
    damaged = write_dataset(tmp_path / "set")
    shard = damaged / "shards" / "shard-00001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RequestError, match=r"shard-00001\.tar: damaged"):
        encode(prepare(config(damaged, tmp_path / "latents")))
    assert not (tmp_path / "latents" / "latents.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_clip_cut_short_ends_the_job_with_its_id(tmp_path):
    short = write_dataset(tmp_path / "set")
    store = Store(str(short))
    clips = store.read_table("clips.parquet")
    ends = clips["end_s"].to_pylist()
    ends[1] += 1.0  # the row promises a second more than the file holds
    column = clips.schema.get_field_index("end_s")
    store.write_table("clips.parquet", clips.set_column(column, "end_s", pa.array(ends)))
    clip_id = clips["clip_id"][1].as_py()
    with pytest.raises(ClipUnreadable, match=f"clip {clip_id} decodes to 48 frames"):
        encode(prepare(config(short, tmp_path / "latents")))
    assert not (tmp_path / "latents" / "latents.json").exists()


def test_the_dry_run_counts_and_writes_nothing(dataset, tmp_path):
    said = dry_run_report(prepare(config(dataset, tmp_path / "latents", pack_clips=2)))
    assert "5 clips of 2 shards, about 193 frames" in said
    assert "would encode 5 clips and take over 0" in said
    # 193 frames of 4x16x28 + 128 values; 3 packs with an empty, 2 or 1 long and 1 short caption.
    assert "3 packs, about " in said
    assert list((tmp_path / "latents").iterdir()) == []


def test_a_missing_or_unfinished_dataset_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"no dataset\.json there"):
        prepare(config(tmp_path / "nothing", tmp_path / "latents"))
