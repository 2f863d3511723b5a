"""Decisions on a page: bars against their limits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pipelines.lineage.page.tables import decision_of
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past
from tests.pipelines.lineage.page.pages import EVIL, answers, page_of

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
