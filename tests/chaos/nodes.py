"""A cluster of several nodes on this machine, and jobs that run on it while nodes come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from tests.conftest import REPOSITORY, Ended


@contextmanager
def head_alone() -> Iterator[Cluster]:
    """A head without a core of its own, at this machine's address, so that the jobs started here
    live there; tests add nodes, at other addresses."""
    health = {"health_check_period_ms": 1000, "health_check_failure_threshold": 10}
    head = {"num_cpus": 0, "_system_config": health}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def nodes_of_one_core(cluster: Cluster, *addresses: str) -> Iterator[list[Any]]:
    """Nodes at loopback addresses; whichever of them, or of those added since, is still there at
    the end goes."""
    before = set(cluster.worker_nodes)
    made = [cluster.add_node(num_cpus=1, node_ip_address=address) for address in addresses]
    cluster.wait_for_nodes()
    try:
        yield made
    finally:
        for node in set(cluster.worker_nodes) - before:
            cluster.remove_node(node, allow_graceful=False)


class RunningJob:
    """A training job in a process group of its own."""

    def __init__(self, *command: str) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the job would inherit that
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**os.environ, "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(self, path: Path, timeout_s: float = 240) -> None:
        self.until_true(path.exists, f"{path} never came", timeout_s)

    def until_any(self, folder: Path, pattern: str, timeout_s: float = 240) -> None:
        """Until a file below the folder has such a name."""
        late = f"no {pattern} ever came below {folder}"
        self.until_true(lambda: any(folder.rglob(pattern)), late, timeout_s)

    def until_true(self, has_come: Callable[[], bool], late: str, timeout_s: float = 240) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not has_come():
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline_s, late
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = 300) -> Ended:
        out, err = self._process.communicate(timeout=timeout_s)
        return Ended(self._process.returncode, out, err)


def processes_below(cluster: Cluster, name: str) -> list[tuple[Any, psutil.Process]]:
    """(node, process) of the cluster's processes whose title has `name`."""
    found = []
    for node in cluster.list_all_nodes():
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):
            try:
                if any(name in part for part in process.cmdline()):
                    found.append((node, process))
            except psutil.Error:
                continue
    return found
