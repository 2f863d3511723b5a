"""What is raised in a Ray worker is said in its own words (tests/jobs holds the exit codes)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray.data
from ray.exceptions import RayError

from model.encoders import WeightsUnavailable
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig, RequestError
from pipelines.curation.captioners import CaptionerFailed
from pipelines.curation.worker_errors import plain_errors


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with connect(ClusterConfig(num_cpus=1)):
        yield


class Failing:
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["fault"] == "weights":
            raise WeightsUnavailable("no such model")
        if row["fault"] == "captioner":
            raise CaptionerFailed("HTTP 400")
        raise OSError(28, "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "raised", "words"),
    [
        ("weights", RequestError, "^no such model$"),
        ("captioner", CaptionerFailed, "^HTTP 400$"),
        ("disk", OSError, "No space left on device$"),
    ],
)
def test_a_worker_s_own_words_arrive(
    ray_here: None, fault: str, raised: type[Exception], words: str
) -> None:
    found = ray.data.from_items([{"fault": fault}]).map(Failing, concurrency=1)  # type: ignore[arg-type]
    with pytest.raises(raised, match=words) as caught, plain_errors():
        found.take_all()
    assert not isinstance(caught.value, RayError)
