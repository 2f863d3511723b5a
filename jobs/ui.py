"""`make ui`: serves MLflow on loopback with a folder's runs, and prints the link to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.config import RequestError, parse_request, setting
from pipelines.job import say

READY_TIMEOUT_S = 90.0
STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"


@dataclass(frozen=True)
class UiConfig:
    """Which runs to show, and where to listen."""

    output: str = setting("outputs/demo", "folder with an mlflow.db (made by `make demo`)")
    uri: str = setting(
        "",
        "tracking store to show instead, e.g. sqlite:////folder/mlflow.db; one with a password is "
        f"given in the environment, as {STORE_VARIABLE}",
    )
    port: int = setting(5000, "port on 127.0.0.1", low=1, high=65535)


def main(argv: Sequence[str]) -> None:
    request = parse_request(
        UiConfig,
        {"demo": UiConfig},
        argv,
        prog="ui.py",
        description="Serves the MLflow UI on loopback until Ctrl-C.",
    )
    config = request.config
    uri = config.uri or os.environ.get(STORE_VARIABLE, "") or _store_of(config.output)
    link = f"http://127.0.0.1:{config.port}/#/experiments?workflowType=machine_learning"
    if request.dry_run:
        say(f"would serve {uri} at {link}")
        return
    send_what_waits(uri)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(config.port), "--workers", "1"]
    if files := _files_beside(uri):  # else MLflow makes a folder where we happen to be
        command += ["--artifacts-destination", files]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        STORE_VARIABLE: uri,  # not an argument: everybody sees those
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_until_ready(server, config.port)
            say(f"MLflow is at {link}   (Ctrl-C stops it)")
            send_what_waits(f"http://127.0.0.1:{config.port}")
            server.wait()
        finally:
            server.terminate()
    if server.returncode not in (0, -15, -2):
        sys.exit(job.EXIT_FAILED)


def send_what_waits(uri: str) -> None:
    """What jobs recorded while this store did not answer, so that the pages show it."""
    from pipelines.lineage.tracked import uri as tracking_uri
    from pipelines.lineage.tracked.replay import replay_everything_for

    if sent := replay_everything_for(tracking_uri.spool_root(), uri):
        say(f"sent {sent} records that waited for {uri}")


def _files_beside(uri: str) -> str:
    """The folder for files that come through the server; empty when its database is elsewhere."""
    from pipelines.lineage.tracked.uri import sqlite_path

    database = sqlite_path(uri)
    return str(database.with_name(f"{database.stem}-artifacts")) if database else ""


def _store_of(output: str) -> str:
    database = Path(output).absolute() / "mlflow.db"
    if not database.is_file():
        raise RequestError(f"{database}: no such file; run `make demo` first, or give --uri")
    return f"sqlite:///{database}"


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise RequestError(f"--port {port}: MLflow did not start; is the port in use?")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RequestError(f"MLflow did not answer on port {port} in {READY_TIMEOUT_S:.0f} s")


if __name__ == "__main__":
    job.run(main)
