"""An answer as a page on disk, and beside the tracked run that it is about."""

from __future__ import annotations

from pathlib import Path

from pipelines.lineage.answers import Answer, Question, home_run
from pipelines.lineage.page.page import write_page
from pipelines.storage.single_files import local_file

RUN_FOLDER = "lineage"


def show_answer(question: Question, found: Answer, path: str | Path) -> str | None:
    """Writes the page to `path`. Returns the id of the run that it was attached to, as
    `lineage/NAME`; None where no run is known that made what was asked about.

    Raises RequestError when the page cannot be written, or the tracking store does not answer.
    """
    write_page(found.catalog, question.kind, found.report, path)
    run_id = home_run(question.tracking, found) if question.tracking else None
    if run_id and question.tracking:
        from pipelines.lineage.tracking import Tracker  # imports mlflow, which takes seconds

        with local_file(str(path)) as page:
            Tracker.open_existing(question.tracking).log_page(run_id, page, RUN_FOLDER)
    return run_id
