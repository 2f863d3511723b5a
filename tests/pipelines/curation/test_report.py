from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pipelines.curation.report import render_report
from pipelines.curation.report_charts import LEFT_PX, RIGHT_PX, histogram
from pipelines.curation.report_facts import ReportFacts, TimedRow
from pipelines.curation.report_rows import ReportRows
from pipelines.media import jpeg_bytes
from pipelines.records import Clip, Source
from tests.pipelines.curation.clips_of import a_clip

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`&"
STAGES = (("motion", "Moves"), ("duplicates", "No better copy"))


def facts(clips: Sequence[Clip], sources: Sequence[Source], **changes: Any) -> ReportFacts:
    picture = jpeg_bytes(np.zeros((36, 64, 3), np.uint8))
    values: dict[str, Any] = {
        "digest": "d" * 32,
        "config": {"motion": {"min_motion": 0.02}},
        "config_hash": "c" * 32,
        "rows": ReportRows.of(sources, clips),
        "num_shards": 1,
        "shard_bytes": 10_000,
        "stages": STAGES,
        "limits": {"motion": [0.02]},
        "stage_times": [TimedRow("watch", 1.0, "8x")],
        "slowest": [TimedRow(EVIL, 3.0)],
        "frames_of": lambda clip: [picture] * 3,
        "media_of": lambda clip: b"media",
    }
    return ReportFacts(**{**values, **changes})


def a_source(number: int, name: str, **changes: Any) -> Source:
    return Source(f"{number:032x}", [name], 1000, duration_s=4.0, **changes)


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    kept = [
        a_clip(1, caption=EVIL, tiers=["base", "premium"], motion=0.3, clip_score=0.4),
        a_clip(2, caption="a red circle", tiers=["base"], motion=0.1),
    ]
    dropped = [a_clip(i, motion=0.001).dropped("motion", "too_still") for i in range(3, 20)]
    sources = [a_source(1, f"films/{EVIL}.mp4"), a_source(2, "films/b.mp4")]
    sources += [a_source(99, f"{EVIL}.txt", status="failed", reason="not_media")]
    return render_report(facts([*kept, *dropped], sources))


def test_nothing_that_came_with_the_footage_becomes_markup(page: str) -> None:
    tags = Tags(page)
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "iframe", "object", "link"})
    assert not any(name.startswith("on") for _, attrs in tags.found for name in attrs)
    assert tags.text.count("<script>alert(1)</script>") >= 3  # as words, to be read


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    for tag, attrs in Tags(page).found:
        for name in ("src", "href", "poster", "srcset"):
            value = attrs.get(name)
            assert value is None or value.startswith("data:"), (tag, value)
    assert "default-src 'none'" in page
    assert re.search(r"url\(|@import", page) is None


def test_every_number_of_the_funnel_is_counted(page: str) -> None:
    text = " ".join(Tags(page).text.split())
    assert "2 clips kept from 2 files" in text
    assert "Found 19 clips, 38 s" in text
    assert "Moves 2 clips, 4.0 s −17: too_still 17" in text
    assert "less motion than the minimum 12 of 17" in text


def test_how_clips_were_cut_and_what_leaked_is_said() -> None:
    clips = [a_clip(1, caption="a", tiers=["base"])]
    counts = {
        "cuts": {"copied": 4, "copied_with_edges": 2, "encoded": 1},
        "cut_again": 1,
        "leak_checked": 5,
        "leak_frames": 0,
        "lost_frames": 0,
    }
    text = " ".join(Tags(render_report(facts(clips, [], cut_counts=counts))).text.split())
    assert "4 clips copied as they were coded, 2 with coded edges, 1 coded again." in text
    assert "Boundary leak: 0 frames of another shot" in text
    assert "in 5 checked clips (1 were cut again)." in text
    unchecked = render_report(facts(clips, [], cut_counts={**counts, "leak_checked": 0}))
    assert "Boundary leak: no clip was checked." in Tags(unchecked).text
    assert "Boundary leak" not in Tags(render_report(facts(clips, []))).text


def test_nothing_kept_is_said_with_the_reasons() -> None:
    clips = [a_clip(i).dropped("motion", "too_still") for i in range(3)]
    text = Tags(render_report(facts(clips, [a_source(1, "a.mp4")]))).text
    assert "Nothing was kept. Reasons: too_still 3." in text
    nothing = Tags(render_report(facts([], []))).text
    assert "no clip was found in any file" in nothing


def test_clips_without_samples_or_with_large_media_do_not_stop_the_page() -> None:
    clip = a_clip(1, caption="a", tiers=["base"])
    page = render_report(
        facts([clip], [], frames_of=lambda c: [], media_of=lambda c: bytes(50 << 20))
    )
    assert "no frame was sampled" in page and len(page) < 1 << 20


def test_a_histogram_counts_every_value_and_places_the_threshold() -> None:
    rng = np.random.default_rng(0)
    kept, lost = list(rng.normal(1, 0.2, 300)), list(rng.normal(0.2, 0.1, 200))
    chart = histogram("Motion", "px", kept, [*lost, 1e9], [0.5])
    assert chart is not None and chart.count == 501
    labels = [re.findall(r"(\d+) kept, (\d+) dropped", b.label)[0] for b in chart.bins]
    assert sum(int(k) for k, _ in labels) == 300 and sum(int(n) for _, n in labels) == 201
    (limit,) = chart.limits
    left = sum(int(k) for (k, _), b in zip(labels, chart.bins, strict=True) if b.x_px < limit.x_px)
    assert left == pytest.approx(sum(v < 0.5 for v in kept), abs=3)
    assert all(LEFT_PX <= t.x_px <= RIGHT_PX for t in chart.ticks) and len(chart.ticks) >= 3


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1.0, 1.0], [1e-9, 2e-9], [1e12, 2e12]])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    chart = histogram("Score", "", values, [], [0.5])
    assert chart is not None and all(np.isfinite(b.x_px + b.kept_px) for b in chart.bins)


def test_no_values_no_chart() -> None:
    assert histogram("Score", "", [], [float("nan")]) is None
