"""Draws what million_sources.py measured: processor time and memory of the driver, by size.

python tests/benchmarks/scale_picture.py FIGURES.json jobs/pages/pictures/scale.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

STAGES = ("ingest", "judge", "select and cut", "write shards", "publish")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("figures")
    parser.add_argument("picture")
    given = parser.parse_args()
    rows = json.loads(Path(given.figures).read_text())
    draw(sorted((r for r in rows if not r["commits"]), key=lambda r: r["sources"]), given.picture)


def draw(rows: list[dict[str, Any]], picture: str) -> None:
    """Time for each source by stage, which is level where nothing is quadratic; and memory."""
    sizes = [row["sources"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for stage in STAGES:
        left.plot(sizes, [1e3 * r["stages"][stage] / r["sources"] for r in rows], "o-", label=stage)
    cpu = [1e3 * row["cpu_seconds"] / row["sources"] for row in rows]
    left.plot(sizes, cpu, "ko--", label="processor, all")
    left.set(xscale="log", yscale="log", xlabel="sources", ylabel="ms for each source")
    left.set_ylim(top=6 * left.get_ylim()[1])  # room for the names
    left.legend(fontsize=8, ncols=2, loc="upper center")
    right.plot(sizes, [row["peak_mib"] for row in rows], "o-", label="in memory, files mapped in")
    right.plot(sizes, [row["own_peak_mib"] for row in rows], "o-", label="its own: no file's")
    right.plot(sizes, [row["before_mib"] for row in rows], "o--", label="after its imports")
    right.set(xscale="log", xlabel="sources", ylabel="driver's memory, MiB", ylim=(0, None))
    right.legend(fontsize=8)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
