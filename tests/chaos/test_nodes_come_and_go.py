"""Work spread over several nodes, one of which is lost and another added in the middle; or all are
left without their head.

Whatever happens, curation ends in the bytes, and training in the weights, of one machine that
nobody touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from pipelines.footage import write_world
from tests.chaos.checker import checkpoint_violations, dataset_violations
from tests.chaos.nodes import RunningJob, head_alone, nodes_of_one_core, processes_below
from tests.chaos.test_training_survives import EVERY, STEPS, training_job
from tests.conftest import run_job
from tests.pipelines.training.synthetic_latents import write_latents

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[list[Any]]:
    with nodes_of_one_core(cluster, "127.0.0.2", "127.0.0.3") as made:
        yield made


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_world(folder, preset="small", real_clips=False)
    return folder


@pytest.fixture(scope="module")
def alone(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that one machine makes."""
    dataset = tmp_path_factory.mktemp("alone") / "set"
    ended = run_job(*curation_job(footage, dataset, "local"))
    assert ended.code == 0, ended.err
    return dataset


def curation_job(footage: Path, dataset: Path, address: str) -> list[str]:
    command = ["jobs/curate.py", "--footage", str(footage), "--dataset", str(dataset)]
    return [*command, "--cluster.address", address, "--tracking.enabled", "false"]


def at_work(cluster: Cluster, title: str) -> set[Any]:
    return {node for node, _ in processes_below(cluster, title)}


def exchange_a_node(cluster: Cluster, lost: Any) -> None:
    """One goes as a machine without power goes; another, never seen before, comes."""
    cluster.remove_node(lost, allow_graceful=False)
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.4")


def test_curation_on_two_nodes(
    cluster: Cluster, nodes: list[Any], footage: Path, alone: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "nodes" / "set"
    job = RunningJob(*curation_job(footage, dataset, cluster.address))
    job.until_true(lambda: at_work(cluster, "ray::Map") == set(nodes), "one node does all of it")
    job.until_any(dataset.parent / "_work" / "watch", "*.parquet")
    exchange_a_node(cluster, nodes[0])
    ended = job.end(timeout_s=600)
    assert ended.code == 0, ended.err
    assert dataset_violations(dataset, footage, alone) == []


def test_curation_that_loses_the_head_of_its_cluster_ends_and_goes_on_in_another(
    footage: Path, alone: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "set"
    with head_alone() as cluster, nodes_of_one_core(cluster, "127.0.0.5", "127.0.0.6"):
        job = RunningJob(*curation_job(footage, dataset, cluster.address))
        job.until_any(tmp_path / "_work" / "watch", "*.parquet")
        cluster.head_node.kill_gcs_server()
        ended = job.end(timeout_s=600)
        assert ended.code == 1 and "Traceback" not in ended.err, ended.err
    with head_alone() as cluster, nodes_of_one_core(cluster, "127.0.0.7", "127.0.0.8"):
        again = run_job(*curation_job(footage, dataset, cluster.address))
    assert again.code == 0, again.err
    assert dataset_violations(dataset, footage, alone) == []


def test_training_with_a_worker_on_each_of_two_nodes(
    cluster: Cluster, nodes: list[Any], tmp_path: Path
) -> None:
    latents = write_latents(tmp_path / "latents")
    two = ("--loop.workers", "2")
    alone = run_job(*training_job(latents, tmp_path / "alone", "local", *two))
    assert alone.code == 0, alone.err
    job = RunningJob(*training_job(latents, tmp_path / "nodes", cluster.address, *two))
    job.until(tmp_path / "nodes" / f"step-{EVERY:08d}")
    assert at_work(cluster, "RayTrainWorker") == set(nodes)
    exchange_a_node(cluster, nodes[1])
    ended = job.end(timeout_s=600)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert checkpoint_violations(tmp_path / "nodes", STEPS, tmp_path / "alone") == []
