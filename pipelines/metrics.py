"""What the jobs tell a monitoring system while they run, through Ray's own metrics.

This file is the whole catalogue: a metric is made here and nowhere else. Ray's agent on each node
exports it in Prometheus' format with `ray_` before the name, and infra/grafana shows it. A process
in which no Ray is up records nothing and imports nothing, and a metric that cannot be recorded
never ends a job.

Labels are few and their values come from lists in our code (stages, reasons): never an id, a path
or a stranger's word, each of which would be a time series of its own for ever.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec

P = ParamSpec("P")

logger = logging.getLogger(__name__)

SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 7200.0)
STEP_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0)


@dataclass
class _Metric(ABC):
    """A metric of Ray's that is made when the first value comes, in whatever process that is."""

    name: str
    description: str
    labels: tuple[str, ...] = ()
    _made: Any = field(default=None, repr=False)

    def _record(self, method: str, value: float, labels: Mapping[str, str]) -> None:
        ray = sys.modules.get("ray")
        try:
            if ray is None or not ray.is_initialized():
                return
            if self._made is None:
                self._made = self._make()
            getattr(self._made, method)(value, tags=dict(labels))
        except Exception as error:
            logger.debug("metrics: %s: %s", self.name, error)

    @abstractmethod
    def _make(self) -> Any:
        """Ray's own metric."""


class Counter(_Metric):
    """Only grows; its name ends in `_total`."""

    def add(self, amount: float = 1, /, **labels: str) -> None:
        if amount > 0:  # Ray takes no zero
            self._record("inc", amount, labels)

    def _make(self) -> Any:
        from ray.util.metrics import Counter

        return Counter(self.name, self.description, self.labels)


class Gauge(_Metric):
    """The value of now."""

    def set(self, value: float, /, **labels: str) -> None:
        self._record("set", value, labels)

    def _make(self) -> Any:
        from ray.util.metrics import Gauge

        return Gauge(self.name, self.description, self.labels)


@dataclass
class Histogram(_Metric):
    """How values spread over ranges with these upper ends. Ray forgets the values themselves, so
    that its `_sum` is a guess from the ranges: a total is a Counter beside it."""

    ends: tuple[float, ...] = SECONDS

    def observe(self, value: float, /, **labels: str) -> None:
        self._record("observe", value, labels)

    def _make(self) -> Any:
        from ray.util.metrics import Histogram

        return Histogram(self.name, self.description, list(self.ends), self.labels)


# --- curation ----------------------------------------------------------------------------------

FILES = Counter(
    "i2vgen_files_total", "Footage files, by what became of them: ok, or a reason", ("outcome",)
)
FOOTAGE_SECONDS = Counter(
    "i2vgen_footage_watched_seconds_total", "Length of the footage that was watched just now"
)
STAGE_SECONDS = Histogram(
    "i2vgen_stage_seconds", "Time a curation stage took for one source", ("stage",)
)
STAGE_WORKER_SECONDS = Counter(
    "i2vgen_stage_worker_seconds_total", "Time that workers spent in a curation stage", ("stage",)
)
CLIPS = Counter(
    "i2vgen_clips_total",
    "Clips of published datasets, by verdict and reason (empty when kept)",
    ("verdict", "reason"),
)
SHARDS = Counter("i2vgen_shards_written_total", "Shards of published datasets")
SHARD_BYTES = Counter("i2vgen_shard_written_bytes_total", "Size of published shards")

# --- latents -----------------------------------------------------------------------------------

CLIPS_ENCODED = Counter(
    "i2vgen_clips_encoded_total", "Clips whose latents were made or taken over", ("stage", "how")
)

# --- training: told by the first worker, for all of them -----------------------------------------

TRAIN_STEPS = Counter("i2vgen_train_steps_total", "Optimizer steps", ("stage",))
TRAIN_SAMPLES = Counter("i2vgen_train_samples_total", "Clips learned from", ("stage",))
TRAIN_FRAMES = Counter("i2vgen_train_frames_total", "Frames learned from", ("stage",))
TRAIN_STEP_SECONDS = Histogram(
    "i2vgen_train_step_seconds", "Time of a step, its data included", ("stage",), ends=STEP_SECONDS
)
TRAIN_SECONDS = Counter(
    "i2vgen_train_seconds_total", "Time of all steps, their data included", ("stage",)
)
TRAIN_WAIT_SECONDS = Counter(
    "i2vgen_train_data_wait_seconds_total", "Time that steps waited for data", ("stage",)
)
TRAIN_LOSS = Gauge("i2vgen_train_loss", "Mean loss of the last steps", ("stage",))

# --- generation and records --------------------------------------------------------------------

GENERATION_SECONDS = Histogram("i2vgen_generation_seconds", "Time of one generated video")
MLFLOW_WAITING = Gauge(
    "i2vgen_mlflow_waiting_records", "Records of this process that MLflow has not taken yet"
)

CATALOGUE: tuple[_Metric, ...] = tuple(m for m in vars().values() if isinstance(m, _Metric))


# --- what is told in one go --------------------------------------------------------------------


def _harmless(tell: Callable[P, None]) -> Callable[P, None]:
    """What is told must never end the job that tells it."""

    @functools.wraps(tell)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(*args, **kwargs)
        except Exception as error:
            logger.debug("metrics: %s: %r", tell.__name__, error)

    return told


@_harmless
def tell_watched(row: Mapping[str, Any]) -> None:
    """Of a source that came out of the graph: `row` holds the figures of its stages."""
    if row["watched_now"]:
        FOOTAGE_SECONDS.add(row["footage_s"])
    for stage in ("watch", "caption", "score"):
        if seconds := row.get(f"{stage}_seconds"):
            tell_stage(stage, seconds)


@_harmless
def tell_stage(stage: str, seconds: float) -> None:
    """Of a curation stage that is done with one source."""
    STAGE_SECONDS.observe(seconds, stage=stage)
    STAGE_WORKER_SECONDS.add(seconds, stage=stage)


@_harmless
def tell_dataset(counts: Mapping[str, Any]) -> None:
    """Of a dataset that was just published: the `counts` of its dataset.json."""
    failed = counts["source_reasons"]
    FILES.add(counts["sources"] - sum(failed.values()), outcome="ok")
    for reason, files in failed.items():
        FILES.add(files, outcome=reason)
    CLIPS.add(counts["kept"], verdict="kept", reason="")
    for reason, clips in counts["reasons"].items():
        CLIPS.add(clips, verdict="dropped", reason=reason)
    SHARDS.add(counts["shards"])
    SHARD_BYTES.add(counts["shard_bytes"])


@_harmless
def tell_pack(stage: str, clips: int, reused: int) -> None:
    """Of latents that one actor wrote, some of them taken over from former ones."""
    CLIPS_ENCODED.add(clips - reused, stage=stage, how="made")
    CLIPS_ENCODED.add(reused, stage=stage, how="reused")


@_harmless
def tell_step(
    stage: str, *, seconds: float, waited_s: float, clips: int, frames: int, loss: float
) -> None:
    """Of one optimizer step of all workers."""
    TRAIN_STEPS.add(stage=stage)
    TRAIN_SAMPLES.add(clips, stage=stage)
    TRAIN_FRAMES.add(frames, stage=stage)
    TRAIN_STEP_SECONDS.observe(seconds, stage=stage)
    TRAIN_SECONDS.add(seconds, stage=stage)
    TRAIN_WAIT_SECONDS.add(waited_s, stage=stage)
    TRAIN_LOSS.set(loss, stage=stage)


@contextlib.contextmanager
def told_to_cluster() -> Iterator[None]:
    """For a job that needs no Ray itself: joins the cluster it was submitted to, so that what it
    records is seen there. Does nothing without one, and goes on where it cannot be joined."""
    with contextlib.ExitStack() as stack:
        if os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
            from pipelines.cluster.connection import connect
            from pipelines.config import ClusterConfig

            try:
                stack.enter_context(connect(ClusterConfig()))
            except Exception as error:
                logger.debug("metrics: cannot join the cluster (%s)", error)
        yield
