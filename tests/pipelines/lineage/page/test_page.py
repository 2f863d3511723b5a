"""Every page stands alone, says what was asked, and lets no foreign word become markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from pipelines.config import RequestError
from pipelines.lineage import catalog, trace
from pipelines.lineage import past as backward
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.page.tables import ROWS_SHOWN
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past
from tests.pipelines.lineage.page.pages import EVIL, QUESTIONS, answers, page_of

REMOTE = ("http:", "https:", "//", "file:")


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
