"""One picture of an evaluation: every video a dot, the mean and its standard error a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.evaluation.measure import MEASURES

COLUMNS = 3


def plot_summary(
    rows: Sequence[Mapping[str, float]],
    summary: Mapping[str, Mapping[str, float]],
    path: Path,
) -> None:
    """A panel per measure, written as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in MEASURES if name in summary]
    height = -(-len(names) // COLUMNS)
    size = (4 * COLUMNS, 2.2 * height)
    figure, axes = pyplot.subplots(height, COLUMNS, figsize=size, layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        values = [row[name] for row in rows if name in row]
        figures = summary[name]
        axis.scatter(values, [0.0] * len(values), alpha=0.5, s=20)
        axis.errorbar(
            figures["mean"], 0.4, xerr=figures["standard_error"], fmt="o", capsize=4, color="black"
        )
        axis.set_title(f"{name.replace('_', ' ')}: {figures['mean']:.3g}", fontsize=9)
        axis.set_yticks([])
        axis.set_ylim(-0.5, 0.9)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.suptitle("each dot a video; above: mean and standard error", fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
