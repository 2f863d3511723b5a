"""Pages of a small past, one for each kind of question, and what a reader finds in them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipelines.lineage import catalog, trace
from pipelines.lineage import past as backward
from pipelines.lineage.difference import diff
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.page.page import write_page
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`&{{7*7}}"
QUESTIONS = ("source", "clip", "checkpoint", "video", "dataset", "difference")


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside of styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.html = path.read_text()
        self._in_style = False
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._in_style else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def media(self) -> list[bytes]:
        sources = [str(attrs["src"]) for attrs in [*self.all("video"), *self.all("img")]]
        return [base64.b64decode(src.partition("base64,")[2]) for src in sources]


def answers(past: Past) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """A report of each kind, as `jobs/trace.py --json` gives it."""
    known = catalog.build([str(past.root)])
    dataset = read_dataset(past.dataset["uri"])
    clips = [c for c in past.clips if c.source_id != world.source_id(SOURCES[2])]
    world.write_dataset(past.root / "later" / "dataset-b", SOURCES, clips)
    later = read_dataset(str(past.root / "later" / "dataset-b"))
    video = backward.video_entry(known, str(past.root / "video-x.mp4"))
    refine = backward.checkpoint_entry(known, past.refine["uri"])
    source = trace.trace_source(known, world.source_id(SOURCES[0]))
    return {
        "source": ("source", {"sources": [source]}),
        "clip": ("clip", trace.trace_clip(known, past.clips_of(SOURCES[0])[0].clip_id)),
        "checkpoint": ("checkpoint", backward.trace_checkpoint(known, refine)),
        "video": ("video", backward.trace_video(known, video)),
        "dataset": ("dataset", backward.trace_dataset(known, dataset)),
        "difference": ("dataset", vars(diff(dataset, later))),
    }


def page_of(past: Past, answer: tuple[str, Mapping[str, Any]], name: str = "page.html") -> Page:
    path = past.root / name
    write_page(catalog.build([str(past.root)]), *answer, path)
    return Page(path)
