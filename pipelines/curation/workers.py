"""Where work runs: on Ray's workers, or, while there is only light work, in this process.

Starting a Ray of our own costs more than a changed threshold does. So it starts with the first
stage that has something to decode or to run a model on. A cluster that was asked for is joined at
once: it has more disks and network than this process.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

from pipelines.cluster.connection import address_of, connect, resources_of_nodes
from pipelines.curation.config import CurateConfig
from pipelines.curation.resources import ResourcePlan, ResourcesConfig, plan_resources
from pipelines.curation.work import Row

MAX_BLOCKS = 2000  # Ray Data blocks: a source each until there are very many
WINDOW_ROWS = 20_000
WAITING_PER_THREAD = 8


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
            self._plan = plan_resources(self._config.resources, resources_of_nodes())
        return self._plan

    def check(self) -> None:
        """Before anything is done: a plan that the request itself makes may not fit. (One that is
        left to the cluster does.)"""
        asked = self._config.resources != ResourcesConfig(attempts=self._config.resources.attempts)
        if asked or address_of(self._config.cluster) or _ray_is_up():
            _ = self.plan

    def each(
        self, function: Callable[..., Row], rows: Iterable[Row], light: bool = False, **told: Any
    ) -> Iterator[Row]:
        """`function(row, **told)` of every row, as they end. Light work hashes and copies.

        The rows may be made as they are asked for: only some of them are there at a time.
        """
        if light and self._plan is None:
            yield from _in_threads(function, rows, told)
            return
        for window in windows(rows):
            cpus = self.plan.watch_cpus
            graph = dataset_of(window).map(function, fn_kwargs=told, num_cpus=cpus)
            yield from graph.iter_rows()


def windows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Runs of rows that a graph takes at once: so many that few workers wait at a run's end, so
    few that the driver can hold them."""
    remaining = iter(rows)
    while window := list(itertools.islice(remaining, WINDOW_ROWS)):
        yield window


def dataset_of(rows: list[Row]) -> Any:
    """A dataset with a block, and so a task, for each row (until there are very many)."""
    import ray.data

    return ray.data.from_items(rows, override_num_blocks=max(1, min(len(rows), MAX_BLOCKS)))


def pool(size: int) -> Any:
    import ray.data

    return ray.data.ActorPoolStrategy(size=size)


def _ray_is_up() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _in_threads(function: Callable[..., Row], rows: Iterable[Row], told: Any) -> Iterator[Row]:
    threads = os.cpu_count() or 1
    remaining = iter(rows)
    with ThreadPoolExecutor(threads) as pool:
        waiting: set[Future[Row]] = set()
        try:
            while True:
                more = itertools.islice(remaining, WAITING_PER_THREAD * threads - len(waiting))
                waiting |= {pool.submit(function, row, **told) for row in more}
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            for one in waiting:
                one.cancel()
