"""Where a clip went, and what a dataset, checkpoint or video was made from.

python jobs/trace.py source FILE_OR_ID
python jobs/trace.py checkpoint FOLDER --json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.config import RequestError, TrackingConfig, check_no_secret
from pipelines.job import say
from pipelines.storage import absolute_uri

QUESTIONS = ("source", "clip", "dataset", "checkpoint", "video")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"trace.py: {message} (see --help)")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="trace.py",
        description="Where a clip went, and what a dataset, checkpoint or video was made from.",
        epilog="examples: python jobs/trace.py source film.mp4 --under outputs/demo; "
        "python jobs/trace.py checkpoint data/refine --html lineage.html",
        allow_abbrev=False,
    )
    parser.add_argument("question", choices=QUESTIONS, help="what the next argument is")
    parser.add_argument(
        "of", metavar="ID_OR_PATH", nargs="+", help="an id or a path; two datasets: what changed"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, complete")
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write a page with the graph, tables and playing clips, and attach it to the MLflow "
        "run that it is about",
    )
    parser.add_argument(
        "--under",
        metavar="DIR",
        action="append",
        default=[],
        help="folder to look in, may be repeated (default: where the tracked runs point, and "
        "around ID_OR_PATH)",
    )
    parser.add_argument(
        "--tracking.uri",
        dest="uri",
        default="",
        help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, else a sqlite file in the home "
        "folder; with --under none is asked unless this is given)",
    )
    parser.add_argument(
        "--tracking.project", dest="project", default="i2vgen-ray", help="MLflow experiment"
    )
    asked = parser.parse_args(argv)
    if len(asked.of) > (2 if asked.question == "dataset" else 1):
        raise RequestError(f"trace.py: too many arguments for {asked.question}: {asked.of}")
    for given in [*asked.of, *asked.under, asked.html or "", asked.uri]:
        check_no_secret(given, "trace.py")
    return asked


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    asked = parse(argv)
    from pipelines.lineage import answers, trace_text

    rows = answers.ROWS_IN_PAGE if asked.html else trace_text.ROWS_SHOWN
    tracking = TrackingConfig(asked.uri, asked.project)
    question = answers.Question(
        kind=asked.question,
        of=asked.of,
        under=asked.under,
        tracking=tracking if asked.uri or not asked.under else None,
        shown=None if asked.json else rows,
    )
    found = answers.answer(question)
    if asked.html:
        from pipelines.lineage.page.answer_page import show_answer

        run_id = show_answer(question, found, asked.html)
        say(f"page: {absolute_uri(asked.html)}")
        if run_id:
            say(f"attached to run {run_id}, as lineage/{Path(asked.html).name}")
    if asked.json:
        return found.report
    print(found.text.rstrip())
    return None


if __name__ == "__main__":
    job.run(main)
