"""The page that says where the cascade's video came from, down to the raw clips."""

from __future__ import annotations

from pipelines.cascade.plan import CascadeConfig
from pipelines.config import RequestError
from pipelines.job import say
from pipelines.lineage.answers import ROWS_IN_PAGE, Question, answer
from pipelines.lineage.catalog import VIDEO_ENDING
from pipelines.lineage.page.answer_page import show_answer

ENDING = ".lineage.html"


def write_lineage_page(config: CascadeConfig, video: str) -> str | None:
    """Beside the video, and attached to the run that made it. None when it cannot be: the video is
    made all the same, and `jobs/trace.py` can be asked again."""
    page = video.removesuffix(VIDEO_ENDING) + ENDING
    question = Question(
        kind="video",
        of=[video],
        under=[config.out],
        tracking=config.tracking if config.tracking.enabled else None,
        shown=ROWS_IN_PAGE,
    )
    try:
        show_answer(question, answer(question), page)
    except RequestError as error:
        say(f"no page of the video's past: {error}")
        return None
    return page
