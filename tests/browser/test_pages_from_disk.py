"""Pages opened from disk: they play, complain of nothing and ask nobody for anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from pipelines.lineage import catalog, manifest, past, trace
from pipelines.lineage.page.page import write_page
from tests.browser.playable_world import EVIL, RAN, write_world
from tests.browser.watched_tab import WIDTH_PX, WatchedTab, play
from tests.conftest import Demo

pytestmark = pytest.mark.slow

TALL_PX = 1060  # the graph and the first row of clips


def shows_words_and_runs_nothing(tab: WatchedTab) -> None:
    assert tab.page.evaluate("window.ran") is None
    assert tab.page.locator("iframe, script, [onload], [onerror]").count() == 0
    assert f"<script>{RAN}</script>" in tab.page.locator("main").inner_text()


def test_hostile_words_are_words(tab: WatchedTab, tmp_path: Path) -> None:
    made = write_world(tmp_path / "out")
    known = catalog.build([str(made.root)])
    checkpoint = past.checkpoint_entry(known, made.checkpoint)
    dataset = manifest.read_dataset(str(made.dataset))
    answers: dict[str, Mapping[str, Any]] = {
        "source": trace.trace_source(known, made.source_id),
        "clip": trace.trace_clip(known, made.clip_id),
        "checkpoint": past.trace_checkpoint(known, checkpoint),
        "video": past.trace_video(known, past.video_entry(known, str(made.video))),
        "dataset": past.trace_dataset(known, dataset),
    }
    for question, report in answers.items():
        path = tmp_path / f"{question}.html"
        write_page(known, question, report, path)
        tab.open_file(path)
        play(tab.page.locator("video").last)
        shows_words_and_runs_nothing(tab)
    assert tab.page.locator("figcaption").first.inner_text().startswith(EVIL[:20])


def test_the_page_of_a_video(tab: WatchedTab, demo: Demo, tmp_path: Path) -> None:
    """Headline, graph, prompt, the video itself and clips that taught it."""
    known = catalog.build([str(demo.out)])
    report = past.trace_video(known, past.video_entry(known, demo.result["video"]))
    write_page(known, "video", report, tmp_path / "page.html")
    tab.open_file(tmp_path / "page.html")
    text = tab.page.locator("main").inner_text()
    assert f"{Path(demo.result['video']).name} was made by the base checkpoint (step " in text
    assert report["made_with"]["prompt"] in text
    players = tab.page.locator("video")
    play(players.first)
    assert players.first.evaluate("video => video.videoWidth") == 320
    play(players.nth(1))
    tab.page.evaluate("scrollTo(0, 0)")
    tab.shoot("video-page")


def test_the_page_of_a_source(tab: WatchedTab, demo: Demo, tmp_path: Path) -> None:
    """A box of the graph lights up what it is joined to, and leads to its row."""
    known = catalog.build([str(demo.out)])
    newest = past.checkpoint_entry(known, demo.result["refine"])
    seen = past.trace_checkpoint(known, newest)["stages"][0]["sources"][0]["source_id"]
    write_page(known, "source", trace.trace_source(known, seen), tmp_path / "page.html")
    tab.open_file(tmp_path / "page.html")
    columns = tab.page.locator("svg .column").all_text_contents()
    assert columns == ["Sources", "Clips", "Shards", "Datasets", "Latents", "Training",
                       "Checkpoints", "Training", "Checkpoints", "Videos"]  # fmt: skip
    play(tab.page.locator("video").first)
    tab.page.evaluate("scrollTo(0, 0)")

    clip = tab.page.locator("svg a.node.kept", has=tab.page.locator("title", has_text="clip, kept"))
    colour = "edge => getComputedStyle(edge).stroke"
    edge = tab.page.locator("svg path.edge").first
    before = edge.evaluate(colour)
    tab.page.set_viewport_size({"width": WIDTH_PX, "height": TALL_PX})
    clip.first.hover()
    tab.shoot("source-page")
    joined = [path.evaluate(colour) for path in tab.page.locator("svg path.edge").all()]
    assert 1 <= sum(stroke != before for stroke in joined) < len(joined)
    clip.first.click()
    row = tab.page.locator("tr:target")
    assert row.count() == 1 and "kept" in row.inner_text()


def test_the_page_of_a_clip(tab: WatchedTab, demo: Demo, tmp_path: Path) -> None:
    """Each decision is a bar that ends on the right side of the limit's line."""
    known = catalog.build([str(demo.out)])
    clips = manifest.read_dataset(demo.result["dataset"]).clips
    films = pc.and_(pc.equal(clips["verdict"], "kept"), pc.equal(clips["kind"], "video"))
    clip_id = clips.filter(films)["clip_id"][0].as_py()
    report = trace.trace_clip(known, clip_id)
    decisions = report["datasets"][0]["decisions"]
    write_page(known, "clip", report, tmp_path / "page.html")
    tab.open_file(tmp_path / "page.html")
    play(tab.page.locator("video").first)
    limits = ("at_least", "at_most")
    drawn = [
        decision
        for decision in decisions
        if isinstance(decision["value"], int | float)
        and any(decision[n] is not None for n in limits)
    ]
    scales = tab.page.locator(".decisions .scale")
    assert scales.count() == len(drawn) > 0
    for scale, decision in zip(scales.all(), drawn, strict=True):
        assert decision["title"] in str(scale.get_attribute("aria-label"))
        bar, limit = (scale.locator(part).first.bounding_box() for part in ("i", "u"))
        assert bar and limit
        is_past = bar["x"] + bar["width"] >= limit["x"] - 0.5
        assert is_past == (decision["at_least"] is not None), decision  # a kept clip passed all
    tab.shoot("clip-decisions", of=tab.page.locator(".decisions"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(
    tab: WatchedTab, demo: Demo, tmp_path: Path, scheme: Any
) -> None:
    """At least 4.5 to 1 between words and what lies behind them, as WCAG asks."""
    known = catalog.build([str(demo.out)])
    dataset = manifest.read_dataset(demo.result["dataset"])
    write_page(known, "dataset", past.trace_dataset(known, dataset), tmp_path / "page.html")
    tab.page.emulate_media(color_scheme=scheme)
    tab.open_file(tmp_path / "page.html")
    places = ("h1", "p.lead", ".tile span", ".tile.strong b", "th", "td", "figcaption small",
              "footer", "svg .column", "svg .label", "svg .detail")  # fmt: skip
    for place in places:
        ratio = tab.page.locator(place).first.evaluate(CONTRAST)
        assert ratio >= 4.5, (place, ratio)
    tab.shoot(f"dataset-page-{scheme}")


CONTRAST = """
(element) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(element);
  const ink = element.ownerSVGElement ? style.fill : style.color;
  let behind = element;
  while (behind && numbers(getComputedStyle(behind).backgroundColor)[3] === 0)
    behind = behind.parentElement;
  const both = [light(ink), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}
"""


def test_the_report_of_curation(tab: WatchedTab, demo: Demo) -> None:
    tab.open_file(demo.dataset / "report.html")
    assert "clips kept from" in tab.page.locator("h1").inner_text()
    play(tab.page.locator("video").first)
    tab.page.evaluate("scrollTo(0, 0)")
    tab.shoot("report")
