"""Training on a cluster of several nodes, while its parts are killed or taken away.

A real `jobs/train_base.py` each time, against a head and two nodes on this machine. Whatever
happens, the weights, averages and optimizer at the end are those of an undisturbed run.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

from tests.chaos.checker import checkpoint_violations
from tests.chaos.nodes import RunningJob, nodes_of_one_core, processes_below
from tests.conftest import run_job
from tests.pipelines.training.synthetic_latents import write_latents

pytestmark = pytest.mark.slow

STEPS, EVERY = 40, 4


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("latents") / "base")


@pytest.fixture(scope="module")
def undisturbed(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = run_job(*training_job(latents, folder, "local"), "--cluster.num_cpus", "1")
    assert ended.code == 0, ended.err
    return folder


def training_job(latents: Path, checkpoints: Path, address: str, *more: str) -> list[str]:
    given = {
        "latents": latents,
        "checkpoints": checkpoints,
        "steps": STEPS,
        "init": "fresh",
        "cluster.address": address,
        "loop.checkpoint_every": EVERY,
        "loop.threads": 1,
        "loop.validation_clips": 0,
        "mixture.frames_per_step": 16,
        "tracking.enabled": "false",
    }
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return ["jobs/train_base.py", *flags, *more]


Disturb = Callable[[Cluster, RunningJob], None]


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[list[Any]]:
    """Two nodes of one core each: room for one training worker, and a place to go on."""
    with nodes_of_one_core(cluster, "127.0.0.2", "127.0.0.3") as made:
        yield made


def kill_the_workers_node(cluster: Cluster, _: RunningJob) -> None:
    ((node, _),) = processes_below(cluster, "RayTrainWorker")
    cluster.remove_node(node, allow_graceful=False)


def announce_that_the_workers_node_goes(cluster: Cluster, _: RunningJob) -> None:
    ((node, _),) = processes_below(cluster, "RayTrainWorker")
    preemption, in_two_minutes_ms = 2, int((time.time() + 120) * 1000)
    accepted, why_not = GcsClient(cluster.address).drain_node(
        node.node_id, preemption, "spot", in_two_minutes_ms
    )
    assert accepted, why_not


def kill_the_controller(cluster: Cluster, _: RunningJob) -> None:
    ((_, controller),) = processes_below(cluster, "TrainController")
    controller.kill()


def kill_the_job(_: Cluster, job: RunningJob) -> None:
    job.signal(signal.SIGKILL)


def press_ctrl_c(_: Cluster, job: RunningJob) -> None:
    job.signal(signal.SIGINT)


def ask_the_job_to_stop(_: Cluster, job: RunningJob) -> None:
    job.signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("disturb", "codes", "says"),
    [
        (kill_the_workers_node, {0}, []),
        (
            announce_that_the_workers_node_goes,
            {0},
            ["a machine is about to go", "on the machines that stay"],
        ),
        (kill_the_controller, {0}, ["controller was lost"]),
        (kill_the_job, {-signal.SIGKILL}, []),
        (press_ctrl_c, {1}, ["interrupted; run the same command again to go on"]),
        (
            ask_the_job_to_stop,
            {128 + signal.SIGTERM},
            ["asked to stop: saving", "run the same command again to go on"],
        ),
    ],
)
def test_the_end_is_that_of_an_undisturbed_run(
    cluster: Cluster,
    nodes: list[Any],
    latents: Path,
    undisturbed: Path,
    tmp_path: Path,
    disturb: Disturb,
    codes: set[int],
    says: list[str],
) -> None:
    command = training_job(latents, tmp_path, cluster.address)
    job = RunningJob(*command)
    job.until(tmp_path / f"step-{EVERY:08d}")
    disturb(cluster, job)
    ended = job.end()
    assert ended.code in codes, ended.err
    assert "Traceback" not in ended.err
    for words in says:
        assert words in ended.err
    if ended.code != 0:
        step = json.loads((tmp_path / "latest.json").read_text())["step"]
        assert EVERY <= step < STEPS, "it was disturbed too late to say anything"
        again = run_job(*command)
        assert again.code == 0, again.err
    assert checkpoint_violations(tmp_path, STEPS, undisturbed) == []
