"""The report of a curation whose every word came from somebody who wants a page to run code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.curation.report import render_report
from tests.browser.playable_world import EVIL, EVIL_NAME, RAN
from tests.browser.watched_tab import WatchedTab
from tests.pipelines.curation.clips_of import a_clip
from tests.pipelines.curation.test_report import a_source, facts

pytestmark = pytest.mark.slow


def test_hostile_words_of_the_footage_are_words(tab: WatchedTab, tmp_path: Path) -> None:
    """File names, captions, licences, consents, codecs, containers, tiers and reasons."""
    said = {"license": EVIL, "consent": EVIL, "codec": EVIL, "container": EVIL}
    sources = [a_source(n, name, **said) for n, name in enumerate((EVIL, EVIL_NAME, "a.mp4"))]
    sources.append(a_source(3, EVIL_NAME, status="failed", reason=EVIL, license=EVIL))
    shown = {"caption": EVIL, "short_caption": EVIL, "captioner": EVIL, "license": EVIL}
    kept = [a_clip(n, verdict="kept", tiers=["base", EVIL], **shown) for n in range(2)]
    dropped = [
        a_clip(2, verdict="dropped", reason_stage=stage, reason=EVIL, consent=EVIL, **shown)
        for stage in ("motion", "takedown", EVIL)
    ]
    clips = [*kept, *(replace(c, shot_index=n) for n, c in enumerate(dropped))]
    stages = (("motion", EVIL), ("takedown", "Not taken down"), (EVIL, EVIL))
    page = render_report(facts(clips, sources, stages=stages, config={EVIL: {EVIL: EVIL}}))
    (tmp_path / "report.html").write_text(page)
    tab.open_file(tmp_path / "report.html")
    assert tab.page.evaluate("window.ran") is None
    assert tab.page.locator("iframe, script, [onload], [onerror], [href^=javascript]").count() == 0
    assert f"<script>{RAN}</script>" in tab.page.locator("body").inner_text()
