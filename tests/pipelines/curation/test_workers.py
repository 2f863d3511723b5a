"""Light work is done here, and Ray is left alone, until something heavy comes (tests/jobs)."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import pytest

from pipelines.config import ClusterConfig, RequestError
from pipelines.curation.config import demo
from pipelines.curation.workers import Workers

UNREACHABLE = ClusterConfig(address="127.0.0.1:9")


def doubled(row: dict[str, int], plus: int) -> dict[str, int]:
    if row["n"] < 0:
        raise ValueError("negative")
    return {"n": 2 * row["n"] + plus}


def workers(stack: ExitStack) -> Workers:
    """Whoever asks these for Ray is refused."""
    return Workers(dataclasses.replace(demo(), cluster=UNREACHABLE), stack)


def test_light_work_needs_no_ray() -> None:
    with ExitStack() as stack:
        rows = [{"n": n} for n in range(50)]
        found = workers(stack).each(doubled, rows, light=True, plus=1)
        assert sorted(row["n"] for row in found) == [2 * n + 1 for n in range(50)]
        assert list(workers(stack).each(doubled, [], plus=1)) == []


def test_what_it_raises_is_raised() -> None:
    with ExitStack() as stack, pytest.raises(ValueError, match="negative"):
        list(workers(stack).each(doubled, [{"n": 1}, {"n": -1}], light=True, plus=1))


def test_a_cluster_that_was_asked_for_is_joined_at_once() -> None:
    with ExitStack() as stack, pytest.raises(RequestError, match="nothing answers"):
        workers(stack).check()
