from __future__ import annotations

import base64
import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import RequestError
from pipelines.lineage import catalog, trace
from pipelines.lineage import past as backward
from pipelines.lineage.difference import diff
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.page.media import CLIPS, media_of, read_member
from pipelines.lineage.page.page import write_page
from pipelines.lineage.page.tables import ROWS_SHOWN, decision_of
from pipelines.storage import Store
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`&{{7*7}}"
QUESTIONS = ("source", "clip", "checkpoint", "video", "dataset", "difference")
REMOTE = ("http:", "https:", "//", "file:")


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


# --- every page ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_page_needs_nothing_but_itself(past: Past, name: str) -> None:
    page = page_of(past, answers(past)[name])
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "link", "form"})
    for _, attrs in page.tags:
        assert not any(key.startswith("on") for key in attrs)
        for key in ("src", "href"):
            assert not str(attrs.get(key, "")).startswith(REMOTE)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'") and "script" not in policy
    assert not re.search(r"@import|url\(", page.html)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_link_leads_somewhere_and_every_id_is_one_thing(past: Past, name: str) -> None:
    page = page_of(past, answers(past)[name])
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = {str(attrs["href"]) for attrs in page.all("a")}
    assert links and {link.removeprefix("#") for link in links} <= set(ids)


@pytest.mark.parametrize("name", QUESTIONS)
def test_pictures_have_words(past: Past, name: str) -> None:
    page = page_of(past, answers(past)[name])
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs.get("aria-label") for attrs in [*page.all("video"), *page.all("svg")])
    boxes = [a for a in page.all("a") if "node" in (a.get("class") or "").split()]
    assert boxes and len(page.all("title")) > len(boxes)  # the document, boxes, curves


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_same_answer_gives_the_same_bytes(past: Past, name: str) -> None:
    answer = answers(past)[name]
    assert page_of(past, answer).html == page_of(past, answer, "again.html").html


def test_it_is_written_over_and_a_place_that_cannot_be_written_is_refused(past: Past) -> None:
    answer = answers(past)["source"]
    (past.root / "page.html").write_text("old")
    assert "old" not in page_of(past, answer).html[:3]
    (past.root / "file").write_text("")
    with pytest.raises(RequestError, match="--html"):
        page_of(past, answer, "file/page.html")
    with pytest.raises(RequestError, match="--html"):
        page_of(past, answer, "dataset-a")  # a folder


# --- what it says ----------------------------------------------------------------------------


def test_a_source_in_one_sentence_and_in_rows(past: Past) -> None:
    page = page_of(past, answers(past)["source"])
    said = "3 of 4 clips of alpha.mp4 kept; 3 checkpoints of 2 trainings saw it and made 1 video."
    assert said in page.text
    rows = [attrs for attrs in page.all("tr") if (attrs.get("id") or "").startswith("clip-")]
    assert len(rows) == 4
    assert "less motion than the minimum" in page.text and "CC0-1.0" in page.text
    assert "a red circle, shot 0 of alpha.mp4" in page.text


def test_a_source_that_nothing_learned_from(past: Past) -> None:
    known = catalog.build([str(past.root / "dataset-a")])
    report = trace.trace_source(known, world.source_id("alpha.mp4"))
    page = page_of(past, ("source", report))
    assert "no checkpoint that can be found has seen it" in page.text


def test_the_last_clean_step_is_named(past: Past) -> None:
    known = catalog.build([str(past.root)])
    report = trace.trace_source(known, world.source_id("beta film.mp4"))
    page = page_of(past, ("source", report))
    after = page.text.partition("Last clean checkpoint")[2]
    assert re.search(r"10\s*\S*base-x", after.replace(str(past.root), ""))


def test_a_checkpoint_with_its_base(past: Past) -> None:
    page = page_of(past, answers(past)["checkpoint"])
    assert "The refine checkpoint at step 10 learned from 3 clips of 1 source, seen 3 times; " in (
        page.text
    )
    assert "it grew from the base one at step 20, which learned from 6 clips" in page.text
    assert "0.0–1.0, 1.0–2.0, 2.0–3.0" in page.text


def test_a_video_with_its_prompt_and_itself(past: Past) -> None:
    page = page_of(past, answers(past)["video"])
    assert "the base checkpoint (step 20) and the refine checkpoint (step 10)" in page.text
    assert re.search(r"Prompt\s*a red circle", page.text) and re.search(r"Seed\s*7", page.text)
    assert page.media()[0] == b"pictures"


def test_runs_are_named_where_a_store_was_asked(past: Past) -> None:
    question, report = answers(past)["checkpoint"]
    assert "Runs in MLflow" not in page_of(past, (question, report)).text
    run = {"run_id": "f" * 32, "kind": "train_refine", "name": EVIL, "status": "FINISHED",
           "started_ms": 1_700_000_000_123, "experiment_id": "1"}  # fmt: skip
    page = page_of(past, (question, {**report, "runs": [run]}))
    after = page.text.partition("Runs in MLflow")[2]
    assert EVIL in after and "2023-11-14 22:13 UTC" in after and "f" * 32 in after


def test_two_versions(past: Past) -> None:
    page = page_of(past, answers(past)["difference"])
    assert "Between the two versions: 0 added, 3 removed, 0 changed clips." in page.text


def test_rows_that_are_not_shown_are_counted(past: Past) -> None:
    question, report = answers(past)["source"]
    (dataset,) = report["sources"][0]["datasets"]
    first = dataset["clips"][0]
    dataset["clips"] = [
        {**first, "clip_id": f"{n:032x}", "shot_index": n, "start_s": n, "end_s": n + 1}
        for n in range(ROWS_SHOWN + 1300)
    ]
    page = page_of(past, (question, report))
    assert "and 1,300 more:" in page.text and "and 1,495 more" in page.text  # rows, boxes
    assert sum((a.get("id") or "").startswith("clip-") for a in page.all("tr")) == ROWS_SHOWN


# --- decisions -------------------------------------------------------------------------------

DECISIONS = [
    {"stage": "motion", "title": "Motion", "value": 0.08, "at_least": 0.02, "at_most": 0.4,
     "unit": "frame widths/s", "passed": True},
    {"stage": "clip_score", "title": EVIL, "value": 0.1, "at_least": 0.2, "at_most": None,
     "unit": "", "passed": False},
    {"stage": "nsfw", "title": "Nudity", "value": None, "at_least": None, "at_most": 0.5,
     "unit": None, "passed": None},
    {"stage": "quality", "title": "Not black", "value": 12.0, "at_least": 10.0, "at_most": None,
     "unit": "levels", "rule": "contrast helps", "outcome": "passed", "passed": True,
     "also": [{"column": "contrast", "at_least": 32.0, "unit": "levels", "value": 76.0}]},
    {"stage": "captions", "title": "Says enough", "value": "a red " + "very " * 20 + "circle",
     "at_least": 2.0, "at_most": None, "unit": "words", "outcome": "not reached", "passed": None},
]  # fmt: skip


def test_decisions_are_bars_against_limits(past: Past) -> None:
    question, report = answers(past)["clip"]
    report["datasets"][0]["decisions"] = DECISIONS
    page = page_of(past, (question, report))
    assert "at least 0.02 and at most 0.4 frame widths/s" in page.text
    assert "failed" in page.text and "not judged" in page.text and EVIL in page.text
    assert "contrast helps" in page.text and "and 76.00, at least 32.00 levels" in page.text
    assert "not reached" in page.text and "a red very very very very very very ver…" in page.text
    bars = [attrs for attrs in page.all("span") if attrs.get("class") == "scale"]
    assert len(bars) == 3  # a number and a limit each
    assert "Steadiness" not in page.text  # the plain scores are for reports without decisions


def test_without_decisions_the_scores_are_listed(past: Past) -> None:
    clips = [replace(clip, motion=0.25) for clip in past.clips]
    world.write_dataset(past.root / "dataset-a", SOURCES, clips)
    page = page_of(past, answers(past)["clip"])
    assert re.search(r"Motion, frame widths/s\s*0.25", page.text)


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "order"),
    [
        (0.5, 0.2, 0.9, ["at_least", "value", "at_most"]),
        (0.1, 0.2, None, ["value", "at_least"]),
        (-3.0, -1.0, None, ["value", "at_least"]),
        (7, None, 5, ["at_most", "value"]),
        (0.0, 0.0, 0.0, ["value", "at_least", "at_most"]),
    ],
)
def test_a_bar_lies_as_the_numbers_do(
    value: float, at_least: float | None, at_most: float | None, order: list[str]
) -> None:
    row = {"stage": "s", "title": "t", "value": value, "at_least": at_least, "at_most": at_most}
    made = decision_of({**row, "unit": None, "passed": True})
    assert made.verdict == "passed"
    limits = iter(made.limits_percent)
    places = {"value": made.bar_percent}
    places |= {
        name: next(limits)
        for name, limit in (("at_least", at_least), ("at_most", at_most))
        if limit is not None
    }
    assert sorted(places, key=lambda name: places[name]) == order
    assert all(0 <= place <= 100 for place in places.values())


# --- hostile words ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUESTIONS)
def test_nothing_that_came_from_elsewhere_becomes_markup(past: Past, name: str) -> None:
    names = [EVIL.replace("/", "⁄"), *SOURCES[1:]]
    clips = world.make_clips(names)
    clips = [
        replace(c, caption=EVIL, short_caption=EVIL, license=EVIL, consent=EVIL) for c in clips
    ]
    digest = world.write_dataset(past.root / "dataset-a", names, clips)
    dataset = {"uri": str(past.root / "dataset-a"), "digest": digest}
    seen = {c.clip_id: (c.source_id, 1, 1) for c in clips if c.verdict == "kept"}
    made = world.write_checkpoint(past.root / EVIL.replace("/", "⁄"), 5, seen, dataset=dataset)
    (past.root / "video-x.json").write_text(
        json.dumps({"settings": {"prompt": EVIL, EVIL: EVIL, "seed": EVIL},
                    "checkpoints": {EVIL: made["digest"]}})
    )  # fmt: skip
    known = catalog.build([str(past.root)])
    evil = replace(past, clips=clips)
    reports = {
        "source": {"sources": [trace.trace_source(known, world.source_id(names[0]))]},
        "clip": trace.trace_clip(known, clips[0].clip_id),
        "checkpoint": backward.trace_checkpoint(
            known, backward.checkpoint_entry(known, made["uri"])
        ),
        "video": backward.trace_video(
            known, backward.video_entry(known, str(past.root / "video-x.mp4"))
        ),
        "dataset": backward.trace_dataset(known, read_dataset(dataset["uri"])),
        "difference": {"before": EVIL, "after": EVIL, "added": [], "changed": [],
                       "removed": [{"clip_id": EVIL, "source_id": EVIL, "why": EVIL}]},
    }  # fmt: skip
    question = "dataset" if name == "difference" else name
    page = page_of(evil, (question, reports[name]))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert all((attrs.get("src") or "").startswith("data:") for attrs in page.all("img"))
    words = EVIL.replace("/", "⁄")
    assert EVIL in page.text or words in page.text  # as words, to be read


# --- clips out of their shards ---------------------------------------------------------------


def test_clips_play_as_they_lie_in_the_shards(past: Past) -> None:
    page = page_of(past, answers(past)["source"])
    assert page.media() == [world.media_of(clip) for clip in past.clips_of("alpha.mp4")]


def test_a_checkpoint_shows_a_clip_of_each_source_that_it_saw(past: Past) -> None:
    known = catalog.build([str(past.root)])
    entry = backward.checkpoint_entry(known, str(past.root / "base-x"))
    media = media_of(known, backward.trace_checkpoint(known, entry))
    seen = {c.clip_id for name in SOURCES[:2] for c in past.clips_of(name)}
    assert {player.clip_id for player in media.players} == seen
    by_id = {clip.clip_id: clip.source_id for clip in past.clips}
    first_two = {by_id[player.clip_id] for player in media.players[:2]}
    assert first_two == {world.source_id(name) for name in SOURCES[:2]}


def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    clips = [world.make_clip("long.mp4", shot) for shot in range(CLIPS + 5)]
    world.write_dataset(tmp_path / "set", ["long.mp4"], clips)
    known = catalog.build([str(tmp_path)])
    report = trace.trace_source(known, world.source_id("long.mp4"))
    media = media_of(known, report)
    assert len(media.players) == CLIPS
    assert media.left_out == (f"{CLIPS} of {CLIPS + 5} clips are shown, to keep the page small",)


def test_a_page_stays_small(past: Past) -> None:
    first, second, _ = (len(world.media_of(clip)) for clip in past.clips_of("alpha.mp4"))
    known = catalog.build([str(past.root)])
    report = trace.trace_source(known, world.source_id("alpha.mp4"))
    media = media_of(known, report, page_bytes=first + second)
    assert len(media.players) == 2 and "1 did not fit" in media.left_out


@pytest.mark.parametrize("harm", ["gone", "cut short", "not a tar"])
def test_a_shard_that_cannot_be_read_is_a_reason(past: Past, harm: str) -> None:
    for shard in (past.root / "dataset-a" / "shards").iterdir():
        data = shard.read_bytes()
        shard.unlink()
        if harm != "gone":
            shard.write_bytes(data[:700] if harm == "cut short" else b"pictures" * 1000)
    page = page_of(past, answers(past)["clip"])
    assert page.media() == [] and "1 could not be read from where they should be" in page.text


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_member_is_found_by_its_headers(tmp_path: Path, place: str) -> None:
    path = tmp_path / "one.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, size in (("a.mp4", 70_000), ("é" * 90 + ".mp4", 1), ("b.mp4", 0), ("c.jpg", 512)):
            file = tmp_path / "content"
            file.write_bytes(hashlib.shake_128(name.encode()).digest(size))
            tar.add(file, name)
    store = Store(str(tmp_path)) if place == "local" else Store(f"memory://{tmp_path.name}")
    if place == "memory":
        store.write_bytes("one.tar", path.read_bytes())
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            held = tar.extractfile(member)
            assert held and read_member(store, "one.tar", member.name) == held.read()
    assert read_member(store, "one.tar", "d.mp4") is None
