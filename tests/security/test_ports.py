"""Where the processes of a job listen: seen while it runs, in the system's own list of sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.cluster.access import check_authenticated, is_loopback
from pipelines.cluster.local import local_cluster
from pipelines.config import RequestError
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

#: Ray Data and two workers of Ray Train, as the jobs start them; waits at its end to be looked at.
JOB = """
import json, sys, time
from pathlib import Path

def train(config):
    import ray.train, torch
    one = torch.ones(1)
    torch.distributed.all_reduce(one)
    Path(config["mark"]).touch()
    time.sleep(4)
    torch.distributed.all_reduce(one)
    ray.train.report({"sum": float(one)})

if __name__ == "__main__":
    from pipelines.cluster.connection import connect
    from pipelines.config import ClusterConfig
    with connect(ClusterConfig(num_cpus=2)):
        import os, ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from pipelines.training.loop.meeting import MeetingConfig
        rows = ray.data.range(8).map(lambda row: {"id": row["id"] + 1}).take_all()
        result = TorchTrainer(
            train,
            train_loop_config={"mark": sys.argv[1]},
            torch_config=MeetingConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=sys.argv[2]),
        ).fit()
        print(json.dumps([len(rows), os.environ["RAY_AUTH_MODE"]]))
"""


def listening(process: psutil.Process) -> Iterator[tuple[str, str]]:
    """(address, process) of each open port of the process and all that descend from it."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    for member in family:
        try:
            for socket in member.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN or (socket.laddr and not socket.raddr):
                    yield socket.laddr.ip.removeprefix("::ffff:"), member.name()
        except psutil.Error:
            continue


def environment() -> dict[str, str]:
    """As on a machine where nothing is set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}


def test_a_job_of_its_own_listens_on_loopback_only(tmp_path: Path) -> None:
    program, mark = tmp_path / "job.py", tmp_path / "training"
    program.write_text(JOB)
    job = subprocess.Popen(
        [sys.executable, str(program), str(mark), str(tmp_path / "notes")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: set[tuple[str, str]] = set()
    arguments = ""
    while job.poll() is None:
        seen |= set(listening(psutil.Process(job.pid)))
        if mark.exists() and not arguments:
            arguments = "\n".join(command_lines(psutil.Process(job.pid)))
            token = psutil.Process(job.pid).environ().get("RAY_AUTH_TOKEN", "")
            assert not token or token not in arguments
        time.sleep(0.3)
    out, err = job.communicate()
    assert job.returncode == 0, err[-3000:]
    assert json.loads(out.splitlines()[-1]) == [8, "token"]
    names = {name for _, name in seen}
    for wanted in ("gcs_server", "raylet", "RayTrainWorker"):
        assert any(wanted in name for name in names), names
    assert {(address, name) for address, name in seen if not is_loopback(address)} == set()
    assert "gcs_server" in arguments


def command_lines(process: psutil.Process) -> Iterator[str]:
    for member in [process, *process.children(recursive=True)]:
        try:
            yield " ".join(member.cmdline())
        except psutil.Error:
            continue


def test_the_head_of_the_demo_listens_on_loopback_only() -> None:
    with local_cluster(num_cpus=1) as cluster:
        me = psutil.Process()
        seen = {found for child in me.children() for found in listening(child)}
        arguments = "\n".join(line for child in me.children() for line in command_lines(child))
        token = cluster.environment["RAY_AUTH_TOKEN"]
    assert any("gcs_server" in name for _, name in seen)
    assert {(address, name) for address, name in seen if not is_loopback(address)} == set()
    assert len(token) == 64 and token not in arguments


OTHERS = ("10.0.0.9:6379", "ray://head.example:10001", "[2001:db8::1]:1")
ASK = """
import sys
from pipelines.cluster.access import check_authenticated
from pipelines.config import RequestError
for address in sys.argv[1:]:
    try:
        check_authenticated(address)
        print("joined")
    except RequestError as error:
        print(error)
"""


def test_another_machine_s_cluster_is_not_joined_without_a_token(tmp_path: Path) -> None:
    def said(**given: str) -> list[str]:
        bare = {**environment(), "HOME": str(tmp_path), **given}
        command = [sys.executable, "-c", ASK, *OTHERS]
        return subprocess.run(command, env=bare, capture_output=True, text=True).stdout.splitlines()

    refused = said()
    assert len(refused) == 3 and all("no token to join it with" in line for line in refused)
    assert said(RAY_AUTH_TOKEN="x" * 64) == ["joined"] * 3
    assert said(RAY_AUTH_MODE="disabled") == ["joined"] * 3


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "localhost:6379", "ray://[::1]:1"])
def test_this_machine_s_cluster_is_joined(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    try:
        check_authenticated(address)
    except RequestError as error:
        pytest.fail(str(error))


def test_the_ui_listens_on_loopback_only(tmp_path: Path) -> None:
    with psutil.Popen(
        [sys.executable, "jobs/ui.py", "--uri", f"sqlite:///{tmp_path}/runs.db", "--port", "5987"],
        cwd=REPOSITORY,
        env={**environment(), "I2VGEN_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert any("MLflow is at http://127.0.0.1:5987" in line for line in server.stderr)
            seen = set(listening(server))
            arguments = "\n".join(command_lines(server))
        finally:
            for child in server.children(recursive=True):
                child.terminate()
            server.terminate()
    assert seen and {found for found in seen if not is_loopback(found[0])} == set()
    assert arguments.count("runs.db") == 1  # the one we gave; the server has it from elsewhere
