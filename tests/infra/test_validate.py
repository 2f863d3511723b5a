"""Every deployment file is sound, and a mistake in any of them is found and named."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from infra import validate
from infra.checks.kubernetes import cluster_of
from infra.render import read_values
from tests.conftest import REPOSITORY, run_job

INFRA = REPOSITORY / "infra"
MANIFESTS = sorted((INFRA / "rendered" / "kubernetes").glob("*.yaml"))
JOBS = [path for path in MANIFESTS if path.stem.startswith("job-")]


def document_of(path: Path) -> Any:
    return yaml.load(path.read_text(), yaml.CSafeLoader)


@pytest.fixture
def infra(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".env")
    shutil.copytree(INFRA, tmp_path / "infra", ignore=ignored)
    return tmp_path / "infra"


def test_every_file_is_sound() -> None:
    assert list(validate.problems_of(validate.checks_of(INFRA).values())) == []


CURATE, TRAIN = "rendered/kubernetes/job-curate.yaml", "rendered/kubernetes/job-train-base.yaml"
MLFLOW, NETWORK = "rendered/kubernetes/mlflow.yaml", "rendered/kubernetes/network.yaml"
NAMESPACE = "rendered/kubernetes/namespace.yaml"
ON_PREMISES, AWS = "rendered/launcher/on-premises.yaml", "rendered/launcher/aws.yaml"
BOARD = "grafana/dashboards/i2vgen-ray.json"

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
    ("compose.yaml", "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "cap_drop must be"),
    ("compose.yaml", "no-new-privileges:true", "no-new-privileges:false", "no-new-privileges"),
    ("compose.yaml", "- source: mlflow-logins", "- source: logins", "no config 'logins'"),
    ("compose.yaml", "services:", "services: [", "while parsing"),
    (ON_PREMISES, "max_workers: 2", "max_workers: two", "max_workers"),
    (ON_PREMISES, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "loopback"),
    (ON_PREMISES, "--env=RAY_AUTH_MODE=token", "--env=RAY_AUTH_MODE=disabled", "missing from"),
    (AWS, "/home/worker/.ray/auth_token:", "/home/worker/token:", "brings the token"),
    (AWS, "resources: {CPU: 0}", "resources: {CPU: 4}", "CPU must be 0"),
    (AWS, "max_workers: 72", "max_workers: some", "'some' is not of type"),
    (CURATE, "mode: token", "mode: disabled", "token"),
    (CURATE, "backoffLimit", "backOffLimit", "backOffLimit"),
    (CURATE, "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot must be true"),
    (CURATE, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "must be true"),
    (CURATE, "drop: [ALL]", "drop: [NET_RAW]", "must drop ALL"),
    (CURATE, "RuntimeDefault", "Unconfined", "must be RuntimeDefault"),
    (CURATE, "automountServiceAccountToken: false", "hostPID: false", "must be false"),
    (CURATE, "mountPath: /dev/shm", "mountpath: /dev/shm", "mountPath"),
    (CURATE, "replicas: 1\n", "replicas: 99\n", "outside"),
    (CURATE, "enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false", "may grow"),
    (CURATE, "i2vgen-ray/role: watch", "i2vgen/role: watch", "no network policy"),
    (TRAIN, 'num-cpus: "0"', 'num-cpus: "4"', "num-cpus"),
    (TRAIN, "name: MLFLOW_TRACKING_URI", "name: MLFLOW_TRACKING_TOKEN", "Secret"),
    (TRAIN, "i2vgen-ray:0.1.0\n", "i2vgen-ray:latest\n", "fixed tag"),
    (MLFLOW, "containerPort: 5000", "containerPort: http", "integer"),
    (NETWORK, "policyTypes: [Ingress, Egress]", "policytypes: [Ingress]", "policytypes"),
    (NAMESPACE, "maxUnavailable: 0", "maxUnvailable: 0", "maxUnvailable"),
    (NAMESPACE, "kind: PodDisruptionBudget", "kind: PodBudget", "no such kind in policy/v1"),
    ("values.yaml", "uri: s3://i2vgen", "uri: /data", "objects.uri"),
    ("values.yaml", "pools: [watch, judge]", "pools: [watch, jugde]", "'jugde' is not in pools"),
    ("values.yaml", "min: 8, max: 8", "min: 9, max: 8", "more than max"),
    ("values.yaml", "shm_gib: 32", "shm_gib: 96", "part of memory_gib"),
    ("values.yaml", "{train}", "{trian}", "cannot be filled in"),
    ("values.yaml", "ray:0.1.0-cpu", "ray", "image.cpu"),
    ("values.yaml", "max: 64", "max: 65", "not what the templates give"),
    (CURATE, "ttlSecondsAfterFinished: 600", "ttlSecondsAfterFinished: 6", "run infra/render.py"),
    ("prometheus.yaml", "ray-worker]", "ray-workers]", "no service 'ray-workers'"),
    ("prometheus.yaml", "scrape_timeout", "scrape_time_out", "scrape_time_out"),
    ("grafana/provisioning/datasources/prometheus.yaml", "uid: prometheus", "uid: p", "of uid"),
    ("grafana/provisioning/dashboards/files.yaml", "type: file", "type: files", "'file' was"),
    (BOARD, "sum(rate(", "sum(rat(", "Footage hours per hour"),
    (BOARD, '"x": 8', '"x": 7', "lies on"),
    (BOARD, '"expr"', '"expression"', "expression"),
    ("Dockerfile", "USER 1000", "USER root", "cuda: the last USER must not be root"),
    ("Dockerfile", "WORKDIR /opt/i2vgen-ray", "WORKDIR opt", "DL3000"),
    ("Dockerfile", "python:3.11.13-slim-bookworm\n", "python\n", "fixed tag"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "words"), EDITS)
def test_mistakes_are_found(infra: Path, file: str, right: str, wrong: str, words: str) -> None:
    path = infra / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    checks = [check for about, check in validate.checks_of(infra).items() if concerns(about, file)]
    problems = list(validate.problems_of(checks))
    assert any(words in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)
    names = [Path(file).name, file, file.removeprefix("rendered/")]
    names += ["rendered/"] if file == "values.yaml" else []
    assert all(problem.startswith(tuple(names)) for problem in problems), problems


def concerns(about: str, file: str) -> bool:
    return file.startswith((about, "rendered/")) if about == "values.yaml" else about in file


@cache
def described(script: str) -> str:
    return run_job(script, "--help").out


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_jobs_accept_the_command_lines_of_the_manifests(path: Path) -> None:
    spec = document_of(path)["spec"]
    _, script, *arguments = shlex.split(spec["entrypoint"])
    flags = [word for word in arguments if word.startswith("--")]
    assert flags
    for flag in flags:
        assert re.search(rf"^\s+{re.escape(flag)}\b", described(script), re.MULTILINE), flag


def clusters() -> list[tuple[str, Any]]:
    found = [(path.stem, document_of(path)) for path in MANIFESTS if path in JOBS]
    found += [("interactive", document_of(JOBS[0].parent / "interactive.yaml"))]
    return [(name, cluster_of(document)) for name, document in found]


def test_there_is_a_manifest_for_every_job_and_one_for_people() -> None:
    scripts = {document_of(path)["spec"]["entrypoint"].split()[1] for path in JOBS}
    wanted = "curate encode train_base train_refine generate evaluate cascade"
    assert scripts == {f"jobs/{name}.py" for name in wanted.split()}
    assert len(clusters()) == len(JOBS) + 1


def test_ray_in_the_manifests_is_ray_in_the_lock() -> None:
    assert {cluster["rayVersion"] for _, cluster in clusters()} == {ray.__version__}
    assert f"ray=={ray.__version__}\n" in (REPOSITORY / "requirements.lock").read_text()


def test_a_training_gets_as_many_gpus_as_it_has_workers_and_neither_more_nor_less() -> None:
    for name, cluster in clusters():
        for group in cluster["workerGroupSpecs"]:
            if group["groupName"] == "train":
                assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
                entrypoint = next(
                    document_of(p)["spec"]["entrypoint"] for p in JOBS if p.stem == name
                )
                asked = re.search(r"--loop\.workers (\d+)", entrypoint)
                assert asked is None or int(asked[1]) == group["replicas"]


def test_only_the_autoscaler_holds_a_key_to_the_cluster() -> None:
    for _, cluster in clusters():
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            (container,) = group["template"]["spec"]["containers"]
            assert "kubernetes-api" not in {m["name"] for m in container["volumeMounts"]}
        if cluster["enableInTreeAutoscaling"]:
            mounts = cluster["autoscalerOptions"]["volumeMounts"]
            assert "kubernetes-api" in {m["name"] for m in mounts}


def policies() -> list[Any]:
    return list(yaml.load_all((INFRA / NETWORK).read_text(), yaml.CSafeLoader))


def test_everything_is_shut_but_what_a_policy_opens() -> None:
    first = policies()[0]["spec"]
    assert first == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies()[1:]:
        selected = policy["spec"]["podSelector"]
        assert selected, policy["metadata"]["name"]  # never every pod
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                assert rule[peers], policy["metadata"]["name"]  # never from or to anywhere


def test_the_policies_know_the_ports_that_ray_is_started_with() -> None:
    (of_ray,) = [p["spec"] for p in policies() if p["metadata"]["name"] == "ray"]
    open_ports = [
        range(port["port"], port.get("endPort", port["port"]) + 1)
        for port in of_ray["ingress"][0]["ports"]
    ]
    for _, cluster in clusters():
        asked = cluster["headGroupSpec"]["rayStartParams"]
        for name in asked:
            if name.endswith("-port") and name != "metrics-export-port":
                assert any(int(asked[name]) in ports for ports in open_ports), name


def test_the_policies_name_every_role_that_a_pod_has() -> None:
    roles = {"submitter", "head", "mlflow"}
    for _, cluster in clusters():
        for group in cluster["workerGroupSpecs"]:
            roles.add(group["template"]["metadata"]["labels"]["i2vgen-ray/role"])
    text = (INFRA / NETWORK).read_text()
    assert all(re.search(rf"\b{role}\b", text) for role in roles)


def test_what_the_image_copies_is_there() -> None:
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


def test_what_prometheus_reads_is_what_ray_exports() -> None:
    document = document_of(INFRA / "prometheus.yaml")
    port = document["scrape_configs"][0]["dns_sd_configs"][0]["port"]
    compose = document_of(INFRA / "compose.yaml")["services"]
    for service in ("ray-head", "ray-worker"):
        assert f"--metrics-export-port={port}" in compose[service]["command"]
    for _, cluster in clusters():
        assert cluster["headGroupSpec"]["rayStartParams"]["metrics-export-port"] == str(port)


def test_prometheus_itself_accepts_its_file() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(INFRA / "prometheus.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_it_runs_as_a_script() -> None:
    sound = run_script("infra/validate.py")
    assert (sound.returncode, sound.stdout) == (0, "")


def test_values_of_ones_own_give_sound_files(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "namespace: films\n"
        "image: {cuda: 'ghcr.io/me/i2vgen@sha256:" + "a" * 64 + "'}\n"
        "objects: {uri: 's3://my-bucket/here', endpoint: 'https://objects.example.org'}\n"
        "cluster: {queue: gpus}\n"
        "pools: {train: {min: 16, max: 16}}\n"
    )
    done = run_script("infra/render.py", "--values", mine, "--out", tmp_path / "deploy")
    assert done.returncode == 0, done.stderr
    checked = run_script("infra/validate.py", tmp_path / "deploy")
    assert (checked.returncode, checked.stdout) == (0, "")
    text = (tmp_path / "deploy" / "kubernetes" / "job-train-base.yaml").read_text()
    assert "--loop.workers 16" in text and "s3://my-bucket/here/latents-base" in text
    assert "http://mlflow.films.svc.cluster.local:5000" in text
    spec = yaml.safe_load(text)
    assert spec["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert spec["spec"]["suspend"] is True and spec["metadata"]["namespace"] == "films"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pools: {train: {cpu: many}}", "pools.train.cpu: 'many' is not of type 'integer'"),
        ("poools: {}", "'poools' was unexpected"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not YAML"),
        ("objects: {uri: 's3://b with space'}", "objects.uri"),
    ],
)
def test_wrong_values_are_one_line_and_exit_2(tmp_path: Path, text: str, words: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    done = run_script("infra/render.py", "--values", mine, "--out", tmp_path / "deploy")
    assert done.returncode == 2 and not (tmp_path / "deploy").exists()
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr
    missing = run_script("infra/render.py", "--values", tmp_path / "no.yaml")
    assert missing.returncode == 2 and "cannot be read" in missing.stderr


def test_the_defaults_are_one_place() -> None:
    """What compose.yaml says again is what values.yaml says."""
    values = read_values(INFRA)
    tag = values["image"]["cpu"].rpartition("/")[2]
    text = (INFRA / "compose.yaml").read_text()
    assert re.search(rf"image: {re.escape(tag)}\s", text)
