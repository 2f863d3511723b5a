"""A worker's own words instead of Ray's account of where they were said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config import RequestError
from pipelines.curation.captioners import CaptionerFailed
from pipelines.job import JobEnded, is_disk_full

RAY_ADVICE = "Failed to apply UDF transform"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises what a worker raised: a RequestError (exit 2), a captioner's or a store's fault or
    a full disk (exit 1)."""
    try:
        yield
    except Exception as error:
        if "ray" not in sys.modules:  # it was never started: nothing of its to translate
            raise
        from ray.exceptions import RayError

        from model.encoders import WeightsUnavailable

        if not isinstance(error, RayError):
            raise
        for cause in _causes(error):
            if isinstance(cause, RayError):  # may also be of the cause's class, with Ray's words
                continue
            _take_off_advice(cause)
            if isinstance(cause, WeightsUnavailable):
                raise RequestError(str(cause)) from None
            if isinstance(cause, (RequestError, JobEnded, CaptionerFailed)) or is_disk_full(cause):
                raise cause from None
        raise


def _take_off_advice(error: BaseException) -> None:
    """Ray Data appends how to change its retries to the words of what is raised."""
    error.args = tuple(
        word.partition(f"\n{RAY_ADVICE}")[0] if isinstance(word, str) else word
        for word in error.args
    )
    if isinstance(error, OSError) and str(error.filename).startswith(RAY_ADVICE):
        del error.filename


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "cause", None)]
