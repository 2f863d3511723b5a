from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import ray
import yaml

from tests.conftest import REPOSITORY, run_job

INFRA = REPOSITORY / "infra"
RAYJOBS = sorted((INFRA / "kuberay").glob("*.yaml"))


def load_validate() -> ModuleType:
    """infra/ is a folder of scripts, not a package."""
    spec = importlib.util.spec_from_file_location("infra_validate", INFRA / "validate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


validate = load_validate()


@pytest.fixture
def infra(tmp_path: Path) -> Path:
    shutil.copytree(INFRA, tmp_path / "infra")
    return tmp_path / "infra"


def test_every_file_is_sound() -> None:
    assert list(validate.check_all(INFRA)) == []


Edit = tuple[str, str, str, str]
EDITS: list[Edit] = [
    ("compose.yaml", "127.0.0.1:8265:8265", "8265:8265", "loopback"),
    ("compose.yaml", "postgres:16.4-alpine", "postgres:latest", "fixed tag"),
    (
        "compose.yaml",
        "RAY_AUTH_TOKEN: ${RAY_AUTH_TOKEN:?set it in infra/.env}",
        "RAY_AUTH_TOKEN: x",
        "required",
    ),
    ("compose.yaml", "    command: [mlflow,", "    comand: [mlflow,", "comand"),
    ("ray-cluster.yaml", "max_workers: 2", "max_workers: two", "max_workers"),
    ("ray-cluster.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "loopback"),
    ("kuberay/rayjob-curate.yaml", "mode: token", "mode: disabled", "token"),
    ("kuberay/rayjob-curate.yaml", "backoffLimit", "backOffLimit", "backOffLimit"),
    ("kuberay/rayjob-curate.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "True"),
    ("kuberay/rayjob-curate.yaml", "replicas: 2", "replicas: 99", "outside"),
    ("kuberay/rayjob-train.yaml", 'num-cpus: "0"', 'num-cpus: "4"', "num-cpus"),
    ("kuberay/rayjob-train.yaml", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "Secret"),
    ("Dockerfile", "USER 1000", "USER root", "root"),
    ("Dockerfile", "WORKDIR /opt/i2vgen-ray", "WORKDIR opt", "DL3000"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "words"), EDITS)
def test_mistakes_are_found(infra: Path, file: str, right: str, wrong: str, words: str) -> None:
    path = infra / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    problems = list(validate.check_all(infra))
    assert any(problem.startswith(Path(file).name) or "kuberay/" in problem for problem in problems)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("path", RAYJOBS, ids=lambda path: path.stem)
def test_the_jobs_accept_the_command_lines_of_the_manifests(path: Path) -> None:
    spec = yaml.safe_load(path.read_text())["spec"]
    _, script, *arguments = spec["entrypoint"].split()
    described = run_job(script, "--help").out
    flags = [word for word in arguments if word.startswith("--")]
    assert flags
    for flag in flags:
        assert re.search(rf"^\s+{re.escape(flag)}\b", described, re.MULTILINE), flag


@pytest.mark.parametrize("path", RAYJOBS, ids=lambda path: path.stem)
def test_ray_in_the_manifests_is_ray_in_the_lock(path: Path) -> None:
    cluster = yaml.safe_load(path.read_text())["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert f"ray=={ray.__version__}\n" in (REPOSITORY / "requirements.lock").read_text()


def test_what_the_image_copies_is_there(infra: Path) -> None:
    text = (INFRA / "Dockerfile").read_text()
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert copied and all((REPOSITORY / name).exists() for name in copied)


def test_every_secret_of_the_compose_file_is_in_the_example() -> None:
    named = set(re.findall(r"\$\{([A-Z0-9_]+)", (INFRA / "compose.yaml").read_text()))
    example = (INFRA / ".env.example").read_text()
    assert named == set(re.findall(r"^([A-Z0-9_]+)=", example, re.MULTILINE))


def test_it_runs_as_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main() == 0 and capsys.readouterr().out == ""
