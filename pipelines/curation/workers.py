"""Where work runs: on Ray's workers, or, while there is only light work, in this process.

Starting a Ray of our own costs more than a changed threshold does. So it starts with the first
stage that has something to decode or to run a model on. A cluster that was asked for is joined at
once: it has more disks and network than this process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import Any

from pipelines.cluster import address_of, connect
from pipelines.curation.committed import Row
from pipelines.curation.config import CurateConfig
from pipelines.curation.resources import ResourcePlan, ResourcesConfig, plan_resources

MAX_BLOCKS = 2000  # Ray Data blocks: a source each until there are very many


class Workers:
    """Ray from the moment it is needed until `stack` closes, and threads before."""

    def __init__(self, config: CurateConfig, stack: ExitStack) -> None:
        self._config, self._stack = config, stack
        self._plan: ResourcePlan | None = None

    @property
    def plan(self) -> ResourcePlan:
        """Starts or joins Ray. Raises RequestError when the plan does not fit the cluster."""
        if self._plan is None:
            self._stack.enter_context(connect(self._config.cluster))
            import ray

            self._plan = plan_resources(self._config.resources, ray.cluster_resources())
        return self._plan

    def check(self) -> None:
        """Before anything is done: a plan that the request itself makes may not fit. (One that is
        left to the cluster does.)"""
        asked = self._config.resources != ResourcesConfig(attempts=self._config.resources.attempts)
        if asked or address_of(self._config.cluster) or _ray_is_up():
            _ = self.plan

    def each(
        self, function: Callable[..., Row], rows: list[Row], light: bool = False, **told: Any
    ) -> Iterator[Row]:
        """`function(row, **told)` of every row, as they end. Light work hashes and copies."""
        if not rows:
            return
        if light and self._plan is None:
            yield from _in_threads(function, rows, told)
        else:
            cpus = self.plan.watch_cpus
            yield from dataset_of(rows).map(function, fn_kwargs=told, num_cpus=cpus).iter_rows()


def dataset_of(rows: list[Row]) -> Any:
    """A dataset with a block, and so a task, for each row (until there are very many)."""
    import ray.data

    return ray.data.from_items(rows, override_num_blocks=max(1, min(len(rows), MAX_BLOCKS)))


def pool(size: int) -> Any:
    import ray.data

    return ray.data.ActorPoolStrategy(size=size)


def _ray_is_up() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _in_threads(function: Callable[..., Row], rows: list[Row], told: Any) -> Iterator[Row]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        waiting = [threads.submit(function, row, **told) for row in rows]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for one in waiting:
                one.cancel()
