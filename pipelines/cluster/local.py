"""A Ray head of our own on this machine: started for a block, reached by `ray job submit`,
and the only thing stopped afterwards (`ray stop` would stop every cluster on the host)."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.cluster.access import CLUSTERS

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True)
class LocalCluster:
    """Where the head listens, and the environment a client needs to talk to it."""

    address: str
    jobs_url: str
    environment: Mapping[str, str]


@contextmanager
def local_cluster(
    *,
    num_cpus: int | None = None,
    log: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[LocalCluster]:
    """Starts a head on loopback with a token of its own; stops exactly its processes at the end.

    `settings`: environment variables of Ray's, for the head and all that it starts.
    Raises RuntimeError with the head's own words when it does not come up in time.
    """
    ports = _free_ports(3)
    # The path of Ray's sockets must stay under 107 bytes, so the folder is short.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token = secrets.token_hex(32)
    environment = {
        **_without_ray(os.environ),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        # Explicit on both sides: a token file in the home directory would decide otherwise.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        # No other node joins: all that it starts listens on 127.0.0.1 alone.
        CLUSTERS: "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        # Ray starts workers at niceness 15: on a machine that does anything else they starve.
        "RAY_worker_niceness": "0",
        # `ray job stop`: time for a training to save the step it is at, before the kill.
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
        "PYTHONUNBUFFERED": "1",
        **(settings or {}),
    }
    output = open(log or folder / "head.log", "ab")  # noqa: SIM115 - closed in the finally below
    head = subprocess.Popen(
        _head_command(ports, folder, num_cpus),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    cluster = LocalCluster(
        address=f"127.0.0.1:{ports[0]}",
        jobs_url=f"http://127.0.0.1:{ports[1]}",
        environment={
            **environment,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports[1]}",
        },
    )
    try:
        _wait_until_up(head, cluster, Path(output.name))
        yield cluster
    finally:
        _stop(head)
        output.close()
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_parent() -> None:
    """In the child, before it becomes the head: SIGTERM when this process goes, however it goes.

    `ray start --block` then stops what it started, so not even a kill -9 leaves a head behind.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _head_command(ports: list[int], folder: Path, num_cpus: int | None) -> list[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--node-ip-address", "127.0.0.1", "--port", str(ports[0])]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports[1])]
    command += ["--dashboard-agent-listen-port", str(ports[2])]
    command += ["--include-dashboard", "true", "--disable-usage-stats", "--temp-dir", str(folder)]
    if num_cpus:
        command += ["--num-cpus", str(num_cpus)]
    return command


def _without_ray(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if not k.startswith("RAY_")}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _wait_until_up(head: subprocess.Popen[bytes], cluster: LocalCluster, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if head.poll() is not None:
            break
        if _answers(cluster):
            return
        time.sleep(0.5)
    words = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the local Ray head did not come up in {START_TIMEOUT_S:.0f} s:\n{words}")


def _answers(cluster: LocalCluster) -> bool:
    """True once the job server itself (not only the port) answers."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        cluster.jobs_url + "/api/jobs/",
        headers={"Authorization": f"Bearer {cluster.environment['RAY_AUTH_TOKEN']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _stop(head: subprocess.Popen[bytes]) -> None:
    """Ends the head and all that descends from it, politely first."""
    try:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    if head.poll() is None:
        head.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    head.wait()
