"""values.yaml -> Kubernetes manifests and files of Ray's cluster launcher.

python infra/render.py                                    writes infra/rendered from the defaults
python infra/render.py --values mine.yaml --out deploy    the same with what mine.yaml changes

Exit 0; 2 and one line when the values are wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jsonschema import Draft202012Validator

INFRA = Path(__file__).resolve().parent
MADE_BY = "# Made by infra/render.py from infra/values.yaml and infra/templates; change those.\n"


class WrongValues(Exception):
    """The values cannot be used; the message says which and why."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--values", type=Path, help="a YAML file with what differs from values.yaml"
    )
    parser.add_argument("--out", type=Path, default=INFRA / "rendered", help="folder to write")
    asked = parser.parse_args(argv)
    try:
        files = render(read_values(INFRA, asked.values))
    except WrongValues as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, text in files.items():
        path = asked.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(files)} files in {asked.out}")
    return 0


def read_values(infra: Path, changes: Path | None = None) -> dict[str, Any]:
    """The defaults with what a file changes. Raises WrongValues."""
    values = _read_mapping(infra / "values.yaml")
    if changes is not None:
        values = _changed(values, _read_mapping(changes))
    problems = list(wrong_in(values, infra))
    if problems:
        raise WrongValues(f"{changes or 'values.yaml'}: {problems[0]}")
    return values


def wrong_in(values: Mapping[str, Any], infra: Path) -> list[str]:
    """A line per value that cannot be used."""
    schema = json.loads((infra / "schemas" / "values.schema.json").read_text())
    errors = sorted(Draft202012Validator(schema).iter_errors(values), key=lambda e: list(e.path))
    if errors:
        return [f"{'.'.join(map(str, e.absolute_path)) or '(top)'}: {e.message}" for e in errors]
    wrong = []
    for name, pool in values["pools"].items():
        if pool["min"] > pool["max"]:
            wrong.append(f"pools.{name}: min {pool['min']} is more than max {pool['max']}")
    sizes = {f"pools.{k}": v for k, v in values["pools"].items()}
    sizes |= {f"heads.{k}": v for k, v in values["heads"].items()}
    for name, size in sizes.items():
        if size["shm_gib"] >= size["memory_gib"]:
            wrong.append(f"{name}: shm_gib is a part of memory_gib and must be less")
    uses = {f"jobs.{k}": v for k, v in values["jobs"].items()}
    for name, use in {**uses, "interactive": values["interactive"]}.items():
        unknown = [p for p in use["pools"] if p not in values["pools"]]
        unknown += [h for h in [use["head"]] if h not in values["heads"]]
        wrong += [f"{name}: {one!r} is not in pools or heads" for one in unknown]
        command = use.get("command", "")
        try:
            entrypoint_of(command, values)
        except (KeyError, IndexError, ValueError) as error:
            wrong.append(f"{name}.command: {error} cannot be filled in; {{store}} or a pool's name")
    return wrong


def entrypoint_of(command: str, values: Mapping[str, Any]) -> str:
    """The command line of a job, its places and sizes filled in."""
    sizes = {name: pool["max"] for name, pool in values["pools"].items()}
    return "python " + command.format(store=values["objects"]["uri"], **sizes)


def render(values: Mapping[str, Any], infra: Path = INFRA) -> dict[str, str]:
    """Relative path -> text of every file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(infra / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    pools = {
        name: {**pool, "name": name, "grows": pool["min"] < pool["max"]}
        for name, pool in values["pools"].items()
    }

    heads = {name: {**head, "spot": False} for name, head in values["heads"].items()}

    here = f"mlflow.{values['namespace']}.svc.cluster.local"
    mlflow = {**values["mlflow"], "host": values["mlflow"]["host"] or here}

    def made(template: str, **facts: Any) -> str:
        told = {**values, "heads": heads, "mlflow": mlflow}
        text = environment.get_template(template).render(v=told, **facts)
        return MADE_BY + text.strip() + "\n"

    files = {}
    for name, job in values["jobs"].items():
        facts = {
            **job,
            "name": name,
            "entrypoint": entrypoint_of(job["command"], values),
            "pools": [pools[p] for p in job["pools"]],
        }
        files[f"kubernetes/job-{name}.yaml"] = made("kubernetes/job.yaml.j2", job=facts)
    of_people = [pools[name] for name in values["interactive"]["pools"]]
    files["kubernetes/interactive.yaml"] = made("kubernetes/interactive.yaml.j2", pools=of_people)
    for name in ("namespace", "network", "mlflow"):
        files[f"kubernetes/{name}.yaml"] = made(f"kubernetes/{name}.yaml.j2")
    for name in ("on-premises", "aws"):
        files[f"launcher/{name}.yaml"] = made(f"launcher/{name}.yaml.j2")
    return files


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise WrongValues(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongValues(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise WrongValues(f"{path}: expected a mapping of values")
    return found


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge, anything else is replaced."""
    merged = dict(values)
    for key, value in changes.items():
        known = merged.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        merged[key] = _changed(known, value) if both and known is not None else value
    return merged


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
