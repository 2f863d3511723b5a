"""Kubernetes manifests: Kubernetes' own schemas (kubernetes-validate), a strict one of ours for
what KubeRay adds, and our rules for pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate

from infra.checks.documents import against, own_schema, read_documents
from infra.checks.rules import is_secret, unpinned

KUBERNETES = "1.37"
OF_KUBERAY = ("RayJob", "RayCluster")


def check_manifests(path: Path, infra: Path) -> Iterator[str]:
    where = f"kubernetes/{path.name}"
    for document in read_documents(path):
        of_one = f"{where}: {document.get('kind')}"
        if document.get("kind") in OF_KUBERAY:
            problems = list(against(own_schema(infra, "kuberay"), document, of_one))
            yield from problems
            if not problems:
                yield from _check_ray(of_one, document)
        else:
            yield from _against_kubernetes(of_one, document)
            template = document.get("spec", {}).get("template")
            if isinstance(template, dict):
                yield from _check_pod(of_one, template)


def cluster_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cluster's specification in a RayJob or a RayCluster."""
    spec = document["spec"]
    return spec["rayClusterSpec"] if document["kind"] == "RayJob" else spec


def _check_ray(where: str, document: Mapping[str, Any]) -> Iterator[str]:
    cluster = cluster_of(document)
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield f"{where}: work on the head takes the cluster down with it; num-cpus must be '0'"
    templates = {"head": head["template"]}
    templates |= {group["groupName"]: group["template"] for group in workers}
    if document["kind"] == "RayJob":
        templates["submitter"] = document["spec"]["submitterPodTemplate"]
    for name, template in templates.items():
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        problems = list(_against_kubernetes(f"{where}: {name}", pod))
        yield from problems
        if not problems:
            yield from _check_pod(f"{where}: {name}", template)
    for group in workers:
        yield from _check_group(f"{where}: {group['groupName']}", group, cluster)


def _check_group(where: str, group: Mapping[str, Any], cluster: Mapping[str, Any]) -> Iterator[str]:
    least, now, most = (group[name] for name in ("minReplicas", "replicas", "maxReplicas"))
    if not least <= now <= most:
        yield f"{where}: replicas outside minReplicas..maxReplicas"
    if least != most and not cluster["enableInTreeAutoscaling"]:
        yield f"{where}: it may grow, but enableInTreeAutoscaling is off"
    same = cluster["headGroupSpec"]["rayStartParams"]
    for name, port in group["rayStartParams"].items():
        if same.get(name) != port:
            yield f"{where}: {name} is not the head's, and the network policy knows one"


def _check_pod(where: str, template: Mapping[str, Any]) -> Iterator[str]:
    spec = template["spec"]
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{where}: automountServiceAccountToken must be false"
    user = spec.get("securityContext", {})
    if user.get("runAsNonRoot") is not True or not user.get("runAsUser"):
        yield f"{where}: runAsNonRoot must be true, with a runAsUser"
    if user.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{where}: seccompProfile must be RuntimeDefault"
    if not template.get("metadata", {}).get("labels", {}).get("i2vgen-ray/role"):
        yield f"{where}: no label i2vgen-ray/role, so no network policy lets it talk"
    for container in spec["containers"]:
        yield from _check_container(where, container)


def _check_container(where: str, container: Mapping[str, Any]) -> Iterator[str]:
    confined = container.get("securityContext", {})
    if confined.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation must be false"
    if confined.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: readOnlyRootFilesystem must be true"
    if confined.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{where}: capabilities must drop ALL"
    yield from unpinned(where, container.get("image", ""))
    resources = container.get("resources", {})
    if not resources.get("requests") or resources.get("requests") != resources.get("limits"):
        yield f"{where}: Ray plans with what it is given; requests must equal limits"
    for entry in container.get("env", []):
        if is_secret(entry["name"]) and "valueFrom" not in entry:
            yield f"{where}: {entry['name']} must come from a Secret"


def _against_kubernetes(where: str, document: Mapping[str, Any]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = "/".join(map(str, getattr(error, "path", []))) or "(top)"
        yield f"{where}: {place}: {str(getattr(error, 'message', error)).splitlines()[0]:.200}"
    except (kubernetes_validate.InvalidSchemaError, kubernetes_validate.SchemaNotFoundError):
        yield f"{where}: Kubernetes {KUBERNETES} has no such kind in {document.get('apiVersion')}"
