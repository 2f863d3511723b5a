"""What infra/compose.yaml starts, on this machine without containers: MLflow with logins on
PostgreSQL, a Ray cluster with a token, Prometheus, and jobs that run against them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.cluster.local import LocalCluster
from pipelines.media import write_video
from pipelines.world.scenes import Scene, render_frames
from tests.conftest import REPOSITORY, run_job
from tests.servers.mlflow_server import MlflowServer
from tests.servers.processes import answers, free_port, server_process

COMPOSE = REPOSITORY / "infra" / "compose.yaml"
ADMIN_PASSWORD, JOBS_PASSWORD = "of-the-administrator", "of-the-jobs-alone"


@dataclass(frozen=True)
class Logins:
    """An MLflow that asks who is there; `jobs` is the environment of a job that may come in."""

    uri: str
    admin: Mapping[str, str]
    jobs: Mapping[str, str]

    def make_login(self) -> subprocess.CompletedProcess[str]:
        """As compose.yaml's one-shot service does."""
        new = {"MLFLOW_LOGIN_USERNAME": "jobs", "MLFLOW_LOGIN_PASSWORD": JOBS_PASSWORD}
        command = [sys.executable, "infra/mlflow_login.py"]
        environment = {**os.environ, **self.admin, **new}
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )


@contextmanager
def mlflow_with_logins(folder: Path, database: str) -> Iterator[Logins]:
    """With compose.yaml's own command, settings and file of logins; only the places are of here."""
    compose = yaml.safe_load(COMPOSE.read_text())
    command: list[str] = compose["services"]["mlflow"]["command"]
    settings: dict[str, str] = compose["services"]["mlflow"]["environment"]
    ini = compose["configs"]["mlflow-logins"]["content"]
    (folder / "basic_auth.ini").write_text(re.sub(r"postgresql://\S+", database, ini))
    at = command.index("--app-name")
    server = MlflowServer(
        folder,
        database,
        str(folder / "artifacts"),
        {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-these-tests",
        },
        options=command[at : at + 2],
    )
    hosts = settings["MLFLOW_SERVER_ALLOWED_HOSTS"].replace(":5000", f":{server.port}")
    server.environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = hosts

    def login(name: str, password: str) -> dict[str, str]:
        keys = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        return dict(zip(keys, (server.uri, name, password), strict=True))

    with server:
        made = Logins(server.uri, login("admin", ADMIN_PASSWORD), login("jobs", JOBS_PASSWORD))
        done = made.make_login()
        assert done.returncode == 0, done.stderr
        yield made


def write_footage(folder: Path) -> None:
    """Two films worth keeping, one where nothing is to be seen, and a file that is no film."""
    folder.mkdir()
    scenes = {
        "one": Scene("square", "blue", "right", "textured", "still", 3),
        "two": Scene("circle", "red", "left", "textured", "still", 5),
    }
    for name, scene in scenes.items():
        write_video(folder / f"{name}.mp4", render_frames(scene, 60, 640, 360, 25.0), fps=25)
    black = np.zeros((360, 640, 3), np.uint8)
    write_video(folder / "black.mp4", (black for _ in range(60)), fps=25)
    (folder / "broken.mp4").write_bytes(b"not a film at all")


def on_cluster(cluster: LocalCluster, logins: Logins, *arguments: str | Path) -> dict[str, Any]:
    """What a job says that joins the cluster and records in MLflow."""
    environment = {**cluster.environment, **logins.jobs, "RAY_ADDRESS": cluster.address}
    ended = run_job(*arguments, timeout_s=600, **environment)
    assert ended.code == 0, ended.err[-3000:]
    return ended.result


def driver(cluster: LocalCluster, code: str) -> str:
    """What a few lines print that run on the cluster."""
    environment = {**os.environ, **cluster.environment, "RAY_ADDRESS": cluster.address}
    done = subprocess.run(
        [sys.executable, "-c", f"import ray; ray.init(log_to_driver=False)\n{code}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@dataclass(frozen=True)
class Prometheus:
    """A real one, that reads a node every second."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Raises HTTPError when Prometheus refuses the question."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def names(self) -> set[str]:
        """Of every series it has ever read."""
        return set(self.ask("label/__name__/values"))

    def values(self, expression: str) -> dict[tuple[str, ...], float]:
        """Values by the labels that are left, in the order of their names."""
        found = self.ask("query", query=expression)["result"]
        return {
            tuple(value for _, value in sorted(one["metric"].items())): float(one["value"][1])
            for one in found
        }


@contextmanager
def prometheus(folder: Path, port_to_read: int) -> Iterator[Prometheus]:
    port = free_port()
    config = {
        "global": {"scrape_interval": "250ms"},
        "scrape_configs": [
            {"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{port_to_read}"]}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml"]
    command += [f"--storage.tsdb.path={folder}/measured", f"--web.listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    with server_process(command, folder / "prometheus.log", lambda: answers(f"{url}/-/ready")):
        yield Prometheus(url)
