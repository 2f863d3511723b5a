"""Joining Ray: what cannot be reached is said in one line, at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pipelines.cluster.connection import address_of, check_reachable, worker_environment
from pipelines.config import ClusterConfig, RequestError
from tests.conftest import REPOSITORY


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on loopback at which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


def test_an_address_where_nothing_answers_is_refused_quickly(closed_port: int) -> None:
    started_s = time.monotonic()
    with pytest.raises(RequestError, match="nothing answers there") as caught:
        check_reachable(f"127.0.0.1:{closed_port}")
    assert time.monotonic() - started_s < 6
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "host:port", "ray://host"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(RequestError, match="expected HOST:PORT"):
        check_reachable(address)


def test_the_job_server_s_address_is_told_apart_from_the_cluster_s() -> None:
    with pytest.raises(RequestError, match="ray job submit"):
        address_of(ClusterConfig(address="http://127.0.0.1:8265"))


def test_the_setting_is_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:1")
    assert address_of(ClusterConfig()) == "10.0.0.1:1"
    assert address_of(ClusterConfig(address="10.0.0.2:2")) == "10.0.0.2:2"
    assert address_of(ClusterConfig(address="local")) is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert address_of(ClusterConfig()) is None


def test_no_secret_is_among_what_ray_writes_into_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.setenv(name, "planted")
    given = worker_environment()
    assert given["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert "planted" not in given.values()


SIGNALLED = """
import os, signal, sys, time
from pipelines import job
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig

def main(_):
    with connect(ClusterConfig(address="local", num_cpus=1)):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a background process
job.run(main)
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "stopped as asked"), (signal.SIGINT, 1, "interrupted")],
)
def test_a_job_with_a_ray_of_its_own_ends_in_order(
    number: signal.Signals, code: int, said: str
) -> None:
    """Ray's own handlers would kill the Ray below the job, and abort."""
    command = [sys.executable, "-c", SIGNALLED, str(int(number))]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == code
    assert f"{said}; run the same command again to go on" in ended.stderr.splitlines()
    assert "Traceback" not in ended.stderr and "SIGTERM received" not in ended.stderr
