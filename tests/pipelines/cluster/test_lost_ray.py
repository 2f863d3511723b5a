"""A job whose Ray goes says so: Ray itself ends the process without a word."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

NEEDS_RAY = """
import sys
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig
with connect(ClusterConfig(address="local", num_cpus=1)):
    print("up", flush=True)
    sys.stdin.readline()
"""
GONE = "error: Ray on this machine is gone; run the same command again to go on"


@pytest.fixture
def job() -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "-c", NEEDS_RAY], cwd=REPOSITORY, text=True, **pipes
    )
    family: list[psutil.Process] = []
    try:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        family = psutil.Process(process.pid).children(recursive=True)
        yield process
    finally:
        process.kill()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()


@pytest.mark.parametrize("what", ["raylet/raylet", "gcs/gcs_server", "ray::DashboardAgent"])
def test_it_is_said_whichever_part_goes(job: subprocess.Popen[str], what: str) -> None:
    family = psutil.Process(job.pid).children(recursive=True)
    next(p for p in family if what in p.cmdline()[0]).kill()
    assert job.stderr is not None
    lines = iter(job.stderr.readline, "")
    until_s = time.monotonic() + 60
    assert any(line.strip() == GONE for line in lines if time.monotonic() < until_s)


def test_nothing_is_said_of_an_orderly_end(job: subprocess.Popen[str]) -> None:
    _, said = job.communicate("end\n", timeout=120)
    assert job.returncode == 0 and GONE not in said
