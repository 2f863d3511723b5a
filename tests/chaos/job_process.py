"""A job as a process, with all that it starts: looked at, signalled, and cleared away."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.conftest import REPOSITORY

HANGS_AFTER_S = 900.0


class Running:
    """A job in a session of its own, with a Ray of its own; none of it is left after `wait`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], home: Path | None = None
    ) -> None:
        own = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        if home is not None:
            own["I2VGEN_HOME"] = str(home)
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._family: dict[int, psutil.Process] = {}
        self._said = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def family(self) -> list[psutil.Process]:
        """Every process below the job, also those whose parent is gone since."""
        try:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self._family.setdefault(process.pid, process)
        except psutil.NoSuchProcess:
            pass
        return [process for process in self._family.values() if process.is_running()]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def first(self, titles: Sequence[str]) -> psutil.Process | None:
        """The first process with one of these titles; None when the job is over before one is."""
        while self.is_running:
            for process in self.family():
                if _has_title(process, titles):
                    return process
            time.sleep(0.05)
        return None

    def stop_one(self, title: str) -> bool:
        """Stops (SIGSTOP) the first process with this title, for good; False if there was none."""
        process = self.first([title])
        if process is not None:
            process.suspend()
        return process is not None

    def wait(self) -> int:
        """The exit code; -9 where it had to be ended because it hangs."""
        until_s = time.monotonic() + HANGS_AFTER_S
        while self.is_running and time.monotonic() < until_s:
            self.family()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=1.0)
        left, hangs = self.family(), self.is_running
        self._process.kill()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._said = self._process.communicate()[1] + (b"it hangs" if hangs else b"")
        return self._process.returncode

    def said(self) -> str:
        return self._said.decode("utf-8", "replace")


def give_no_more_memory(process: psutil.Process, room_bytes: int) -> None:
    """From now on it gets `room_bytes` beyond what it has (RLIMIT_AS), as under a memory limit."""
    most = process.memory_info().vms + room_bytes
    resource.prlimit(process.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _has_title(process: psutil.Process, titles: Sequence[str]) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    asked_for = any(one in title for one in titles)
    # An agent of Ray's is no task: its raylet goes with it.
    return asked_for and "IDLE" not in title and ("Agent" not in title or "Agent" in titles[0])
