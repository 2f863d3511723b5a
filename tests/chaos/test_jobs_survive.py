"""The real jobs, each disturbed once and run again: the checker finds nothing, and the bytes are
those of an undisturbed run. The long form, with faults at random, is `make chaos`."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipelines.curation.watch import watch_source
from pipelines.curation.watch_config import WatchConfig
from pipelines.records import Source
from tests.chaos.checker import dataset_violations
from tests.chaos.faults import KINDS, Fault, random_fault
from tests.chaos.job_process import Running
from tests.chaos.jobs_under_faults import FILMS, JOBS, World, many
from tests.chaos.small_disk import small_disk
from tests.conftest import run_job
from tests.servers.door import Door

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("I2VGEN_CHAOS_SEED", "0"))


def test_killed_at_a_failpoint(world: World, tmp_path: Path) -> None:
    """In a whole job, with its workers; test_failpoints.py strikes every one of them alone."""
    fault = Fault("failpoint", failpoint="dataset.before_manifest")
    outcome = world.disturb("curate", fault, tmp_path / "out")
    assert outcome.struck and outcome.violations == [], outcome


def test_killed_at_random(world: World, tmp_path: Path) -> None:
    """One of what `make chaos` does hundreds of; the seed is printed, and can be given."""
    print(f"seed {SEED}: I2VGEN_CHAOS_SEED={SEED} does the same again")
    outcomes = []
    assert many(world, tmp_path, SEED, 1, time.monotonic() + 3600, outcomes.append) == 1
    assert [o for o in outcomes if o.violations] == []


@pytest.mark.parametrize(
    ("job", "fault"),
    [
        ("encode", Fault("mlflow_slow")),
        ("encode", Fault("memory", after_s=4.0, amount=1 << 20)),
        ("encode", Fault("clock", amount=30 * 3600)),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else value,
)
def test_what_goes_on_around_a_whole_job(
    world: World, tmp_path: Path, job: str, fault: Fault
) -> None:
    """The server of records is slow, a worker gets no more memory, clocks jump; damage between a
    kill and what comes after it is in test_damage.py, and drawn by `make chaos`."""
    outcome = world.disturb(job, fault, tmp_path / "out")
    assert outcome.struck and outcome.violations == [], outcome


@pytest.mark.parametrize("job", ["encode", "train"])
def test_of_two_that_write_to_one_place_one_is_refused(
    world: World, tmp_path: Path, job: str
) -> None:
    two = [Running(world.command(job, tmp_path), {}) for _ in range(2)]
    codes = [running.wait() for running in two]
    assert sorted(codes) == [0, 2], [running.said()[-500:] for running in two]
    refused = two[codes.index(2)].said()
    # Who came when the other was done has as little to do there.
    assert "is writing there" in refused or "already" in refused or "meanwhile" in refused
    assert world.violations(job, tmp_path) == []


def test_a_disk_that_is_full_or_read_only(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        out = disk.folder / "out"
        command = [str(word) for word in world.command("encode", out)[1:]]
        elsewhere = ["--tracking.enabled", "false"]
        full = disk.folder / "full"
        full.write_bytes(bytes((1 << 20) - 24 * 4096))
        ended = run_job(*command, *elsewhere)
        assert ended.code == 1, ended.err
        (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert "the disk is full" in line and "Traceback" not in ended.err
        assert not (out / "latents" / "latents.json").exists()

        disk.make_read_only()
        ended = run_job(*command, *elsewhere)
        assert ended.code == 2 and "cannot write here" in ended.err, ended.err
        assert "Traceback" not in ended.err

        disk.make_writable()
        full.unlink()
        disk.grow(64)
        ended = run_job(*command, *elsewhere)
        assert ended.code == 0, ended.err
        assert world.violations("encode", out) == []


def test_a_tracking_server_that_is_out_of_reach_costs_nothing(world: World, tmp_path: Path) -> None:
    """It answers 403 to everything. The records wait on disk, with the digest of what was made."""
    with Door("http://127.0.0.1:9") as door:
        door.forbid()
        command = [str(word) for word in world.command("encode", tmp_path)[1:]]
        home = {"I2VGEN_HOME": str(tmp_path / "home")}
        ended = run_job(*command, "--tracking.uri", door.uri, **home)
    assert ended.code == 0 and "Traceback" not in ended.err, ended.err
    assert world.violations("encode", tmp_path) == []
    (lines,) = [p.read_text() for p in (tmp_path / "home").rglob("*.jsonl")]
    assert ended.result["digest"] in lines and ended.result["run_id"]


def test_a_decoder_that_hangs_and_one_without_memory_cost_their_film_alone(
    world: World, tmp_path: Path
) -> None:
    command = [str(word) for word in world.command("curate", tmp_path)]
    limits = ["--watch.sandbox.wall_s", "5", "--watch.sandbox.memory_mib", "64"]
    running = Running([*command, *limits], {}, home=tmp_path / "home")
    assert running.stop_one("child.serve"), running.said()
    assert running.wait() == 0, running.said()
    assert dataset_violations(tmp_path / "set", world.footage) == []


def test_a_decoder_that_is_killed_at_any_moment_says_nothing_about_its_film(world: World) -> None:
    """While it starts, too: that was once taken for a broken film, for good."""
    path = world.footage / FILMS[0]
    source, watch = Source("0" * 32, [FILMS[0]], path.stat().st_size), WatchConfig()
    rng = random.Random(SEED)
    for _ in range(10):
        killing = threading.Timer(rng.uniform(0, 1.5), kill_decoders)
        killing.start()
        seen = watch_source(source, str(path), watch).source
        killing.join()
        assert (seen.status, seen.reason) in {("ok", None), ("failed", "decoder_died")}
    assert watch_source(source, str(path), watch).source.status == "ok"


def kill_decoders() -> None:
    for process in psutil.Process().children():
        if "child.serve" in " ".join(process.cmdline()):
            process.kill()  # not waited for: how it ended is its parent's to read


def test_the_seed_decides_the_faults() -> None:
    faults = [[random_fault("curate", rng, 60.0) for _ in range(20)]
              for rng in (random.Random(7), random.Random(7), random.Random(8))]  # fmt: skip
    assert faults[0] == faults[1] != faults[2]


def test_every_kind_of_fault_is_drawn_for_some_job() -> None:
    rng = random.Random(SEED)
    drawn = {random_fault(job, rng, 60.0).kind for job in JOBS for _ in range(500)}
    assert drawn == set(KINDS)
