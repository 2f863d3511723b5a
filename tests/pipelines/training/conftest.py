from collections.abc import Iterator

import pytest

from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    """One local Ray with two cores for the tests of this folder that need a real one."""
    with connect(ClusterConfig(address="local", num_cpus=2)):
        yield
