"""Checks every deployment file without a cluster: against its schema, then against our own rules.

python infra/validate.py                   exit 0, or a line per problem and exit 1
python infra/validate.py deploy            the same of a folder that infra/render.py wrote
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.checks.compose import check_compose
from infra.checks.dockerfile import check_dockerfile
from infra.checks.documents import Unreadable
from infra.checks.kubernetes import check_manifests
from infra.checks.launcher import check_launcher
from infra.checks.monitoring import check_dashboard, check_grafana, check_prometheus
from infra.checks.rendered import check_rendered

INFRA = Path(__file__).resolve().parent


Check = Callable[[], Iterator[str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER",
        help="what infra/render.py wrote; default: every file of infra/",
    )  # fmt: skip
    folders = parser.parse_args().folders
    checks = [one for folder in folders for one in checks_of_deployment(folder, INFRA).values()]
    checks = checks or list(checks_of(INFRA).values())
    problems = list(problems_of(checks))
    for problem in problems:
        print(problem)
    print(f"{len(checks)} checks, {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


def checks_of(infra: Path) -> dict[str, Check]:
    """What is to be checked, by the file or folder that it is about."""
    grafana = infra / "grafana"
    dashboards = sorted((grafana / "dashboards").glob("*.json"))
    return {
        "compose.yaml": partial(check_compose, infra / "compose.yaml"),
        "Dockerfile": partial(check_dockerfile, infra / "Dockerfile"),
        "values.yaml": partial(check_rendered, infra),
        **{
            f"rendered/{name}": check
            for name, check in checks_of_deployment(infra / "rendered", infra).items()
        },
        "prometheus.yaml": partial(check_prometheus, infra / "prometheus.yaml"),
        "grafana/provisioning": partial(check_grafana, grafana),
        **{f"grafana/dashboards/{p.name}": partial(check_dashboard, p) for p in dashboards},
    }


def checks_of_deployment(folder: Path, infra: Path) -> dict[str, Check]:
    """Of a folder that infra/render.py wrote."""
    manifests = sorted((folder / "kubernetes").glob("*.yaml"))
    launchers = sorted((folder / "launcher").glob("*.yaml"))
    if not manifests or not launchers:
        return {"": lambda: iter([f"{folder.name}: no manifests there; run infra/render.py"])}
    return {
        **{f"kubernetes/{path.name}": partial(check_manifests, path, infra) for path in manifests},
        **{f"launcher/{path.name}": partial(check_launcher, path) for path in launchers},
    }


def problems_of(checks: Iterable[Check]) -> Iterator[str]:
    """A line per problem, each beginning with the file's name."""
    for check in checks:
        try:
            yield from check()
        except Unreadable as error:
            yield str(error)


if __name__ == "__main__":
    sys.exit(main())
