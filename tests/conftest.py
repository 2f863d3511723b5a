"""What every test stands on: state kept out of the home directory, and one finished demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.process_groups import DEMO, group_of

REPOSITORY = Path(__file__).resolve().parents[1]

# Before anything imports them: no telemetry, no hub, no token file deciding about Ray's door.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: starved beside anything else
os.environ.setdefault("WDS_SECURE", "1")
# Two processes share the cores, and each job has a thread for every core: one that waits for
# another must not spin meanwhile. (Measured, two at once: five times as long with spinning.)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same examples every time, so that a red run is the change's fault and is red again at once;
# HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("search", max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which process runs what, on several (`-n`)."""
    from tests.process_groups import ByWhatIsShared

    return ByWhatIsShared(config, log)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """What fails is told at once: a run that is cut off later has then said why."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(terminal))


class FailuresAtOnce:
    """Writes a failure's name and text where it happens, beside pytest's own list at the end."""

    def __init__(self, terminal: Any) -> None:
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.ensure_newline()
            self.terminal.write_line(f"{report.outcome}: {report.nodeid} ({report.when})")
            self.terminal.write_line(report.longreprtext[-4000:])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no process sits alone with it at the end."""
    slow = {group_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    groups = {item.nodeid: group_of(item.nodeid) for item in items}
    items.sort(key=lambda item: (groups[item.nodeid] != DEMO, groups[item.nodeid] not in slow))


@pytest.fixture(scope="session", autouse=True)
def state_of_our_own() -> Iterator[None]:
    """Runs that name no tracking store write to a folder of this test session."""
    before = {name: os.environ.get(name) for name in ("I2VGEN_HOME", "MLFLOW_TRACKING_URI")}
    with tempfile.TemporaryDirectory(prefix="i2vgen-home-") as home:
        os.environ["I2VGEN_HOME"] = home
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@dataclass(frozen=True)
class Ended:
    """A job that ran as a user runs it."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object that the job's last line is."""
        return json.loads(self.out.splitlines()[-1])


def run_job(*arguments: str | Path, timeout_s: float = 1800, **environment: str) -> Ended:
    """Runs `python jobs/...` in a process of its own, from the repository's root."""
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@dataclass(frozen=True)
class Demo:
    """The output folder of one small demo, and the JSON object it ended with."""

    out: Path
    result: dict[str, Any]
    err: str

    @property
    def footage(self) -> Path:
        return self.out / "footage"

    @property
    def dataset(self) -> Path:
        return Path(self.result["dataset"])


DEMO_ARGUMENTS = ("--world", "small", "--steps", "3", "--refine-steps", "2", "--premium-steps", "1")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`make demo` with little footage and few steps: a real head, every job submitted to it."""
    out = tmp_path_factory.mktemp("demo")
    ended = run_job("jobs/demo.py", "--out", out, *DEMO_ARGUMENTS)
    assert ended.code == 0, ended.err[-4000:]
    return Demo(out, ended.result, ended.err)
