"""infra/rendered is what values.yaml and the templates give; nobody has edited it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infra.render import WrongValues, read_values, render


def check_rendered(infra: Path) -> Iterator[str]:
    try:
        wanted = render(read_values(infra), infra)
    except WrongValues as error:
        yield f"values.yaml: {str(error).removeprefix('values.yaml: ')}"
        return
    folder = infra / "rendered"
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.yaml")}
    for name in sorted(set(there) - set(wanted)):
        yield f"rendered/{name}: no template gives it; remove it"
    for name, text in wanted.items():
        if name not in there or there[name].read_text() != text:
            yield f"rendered/{name}: not what the templates give; run infra/render.py"
