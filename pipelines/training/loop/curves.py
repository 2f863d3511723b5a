"""What a person sees of training: the progress line's figures, and the curves in MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines.lineage.tracking import Run
from pipelines.training.loop.learner import StepFigures
from pipelines.training.loop.progress_board import Channel
from pipelines.training.loop.throughput import Meter

LOSSES_SHOWN = 20  # single steps vary with their noise levels
LOSSES_TO_JUDGE = 5


class RecentLosses:
    """The last losses; part of a checkpoint, so that a run that goes on shows what one that never
    stopped shows."""

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self._losses = list(losses)

    def add(self, loss: float) -> None:
        self._losses = [*self._losses[1 - LOSSES_SHOWN :], loss]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(self._losses)

    @property
    def mean(self) -> float:
        """Infinite before the first step."""
        return sum(self._losses) / len(self._losses) if self._losses else math.inf

    def is_explosion(self, loss: float, times: float) -> bool:
        """Whether a loss is `times` the mean of those before it; never for 0, or at the start."""
        enough = len(self._losses) >= LOSSES_TO_JUDGE
        return times > 0 and enough and loss > times * self.mean


class Curves:
    """Tells of the steps: the first worker's figures are everyone's."""

    def __init__(self, runs: Callable[[int], Sequence[Run]], channel: Channel, every: int) -> None:
        """`runs` gives the runs that a step's figures belong to: the job's, and its phase's."""
        self._runs, self._channel, self._every = runs, channel, every

    def tell_step(
        self,
        step: int,
        figures: StepFigures,
        losses: RecentLosses,
        meter: Meter,
        extra: dict[str, float],
        *,
        last: bool,
    ) -> None:
        speed = meter.figures()
        self._channel.post(step, _shown(losses, speed), at_once=last)
        if step % self._every == 0 or last:
            self.tell(step, {**step_metrics(figures), **speed, **extra})

    def tell(self, step: int, metrics: dict[str, float]) -> None:
        for run in self._runs(step):
            run.log_metrics(metrics, step)


def step_metrics(figures: StepFigures) -> dict[str, float]:
    """A step's figures by the names of their curves."""
    return {
        "loss": figures.loss,
        **{f"loss_{name}": value for name, value in figures.bins.items()},
        **{f"learning_rate_{name}": rate for name, rate in figures.rates.items()},
        "gradient_norm": figures.grad_norm,
    }


def _shown(losses: RecentLosses, speed: dict[str, float]) -> dict[str, str]:
    tflop, peak = speed["tflop_per_s"], speed["share_of_peak"]
    return {
        "loss": f"{losses.mean:.4f}",
        "steps/s": f"{speed['steps_per_s']:.2f}",
        "clips/s": f"{speed['clips_per_s']:.1f}",
        "TFLOP/s": f"{tflop:.3g} ({peak:.0%} of peak)",
    }
