"""What the tests on several nodes, and those that disturb jobs, stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from tests.chaos.jobs_under_faults import World
from tests.chaos.nodes import head_alone


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with head_alone() as made:
        yield made


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A little footage, and what undisturbed jobs made of it."""
    return World.make(tmp_path_factory.mktemp("world"))
