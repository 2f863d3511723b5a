"""A worker's own words instead of Ray's account of where they were said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config import RequestError
from pipelines.curation.captioners import CaptionerFailed


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises what a worker raised: a RequestError (exit 2) or a captioner's fault (exit 1)."""
    from ray.exceptions import RayError

    from model.encoders import WeightsUnavailable

    try:
        yield
    except RayError as error:
        for cause in _causes(error):
            if isinstance(cause, WeightsUnavailable):
                raise RequestError(str(cause)) from None
            if isinstance(cause, (RequestError, CaptionerFailed)):
                raise cause from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "cause", None)]
