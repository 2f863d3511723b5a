"""Where a clip went, and what a dataset, checkpoint or video was made from.

python jobs/trace.py source FILE_OR_ID
python jobs/trace.py checkpoint FOLDER --json
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.config import RequestError, TrackingConfig
from pipelines.storage import Store, absolute_uri

QUESTIONS = ("source", "clip", "dataset", "checkpoint", "video")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"trace.py: {message} (see --help)")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="trace.py",
        description="Where a clip went, and what a dataset, checkpoint or video was made from.",
        epilog="example: python jobs/trace.py source film.mp4 --under outputs/demo",
        allow_abbrev=False,
    )
    parser.add_argument("question", choices=QUESTIONS, help="what the next argument is")
    parser.add_argument(
        "of", metavar="ID_OR_PATH", nargs="+", help="an id or a path; two datasets: what changed"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, complete")
    parser.add_argument(
        "--under",
        metavar="DIR",
        action="append",
        default=[],
        help="folder to look in, may be repeated (default: where the tracked runs point, and "
        "around ID_OR_PATH)",
    )
    parser.add_argument("--tracking.uri", dest="uri", default="", help="MLflow tracking URI")
    parser.add_argument(
        "--tracking.project", dest="project", default="i2vgen-ray", help="MLflow experiment"
    )
    asked = parser.parse_args(argv)
    if len(asked.of) > (2 if asked.question == "dataset" else 1):
        raise RequestError(f"trace.py: too many arguments for {asked.question}: {asked.of}")
    return asked


def answer(asked: argparse.Namespace) -> tuple[Any, str]:
    """(what `--json` prints, what a person reads)."""
    from pipelines.lineage import catalog, manifest, past, trace, trace_text
    from pipelines.lineage.tracking import Tracker

    first = asked.of[0]
    if asked.question == "dataset":
        dataset = manifest.read_dataset(first)
        if len(asked.of) == 2:
            difference = manifest.diff(dataset, manifest.read_dataset(asked.of[1]))
            return dataclasses.asdict(difference), trace_text.diff_text(difference)
    elif asked.question in ("checkpoint", "video") and not Store.open(first).exists(""):
        raise RequestError(f"{asked.question} {first}: no such file or folder")

    tracker = None
    if not asked.under:
        tracker = Tracker.open_existing(TrackingConfig(asked.uri, asked.project))
    near = asked.of if "/" in first or Path(first).exists() else ()
    known = catalog.build(asked.under, tracker, near)

    if asked.question == "dataset":
        held = past.trace_dataset(known, dataset)
        return held, trace_text.dataset_text(held)
    if asked.question == "source":
        sources = [trace.trace_source(known, i) for i in trace.source_ids_of(known, first)]
        return {"sources": sources}, "\n".join(map(trace_text.source_text, sources))
    if asked.question == "clip":
        clip = trace.trace_clip(known, first)
        return clip, trace_text.clip_text(clip)
    if asked.question == "checkpoint":
        entry = past.checkpoint_entry(known, absolute_uri(first))
        checkpoint = past.trace_checkpoint(known, entry)
        return checkpoint, trace_text.checkpoint_text(checkpoint)
    video = past.trace_video(known, past.video_entry(known, absolute_uri(first)))
    return video, trace_text.video_text(video)


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    asked = parse(argv)
    found, text = answer(asked)
    if asked.json:
        return found
    print(text.rstrip())
    return None


if __name__ == "__main__":
    job.run(main)
