from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from pipelines.config import RequestError
from pipelines.curation.config import CurateConfig
from pipelines.curation.nsfw import NsfwConfig, NsfwDetector, check_nsfw, judge
from pipelines.curation.verdicts import drawn_limits, judge_scored
from pipelines.media import jpeg_bytes
from tests.pipelines.curation.clips_of import a_clip
from tests.pipelines.pictures import scenery

ON = NsfwConfig(method="nudenet")


@pytest.mark.parametrize(("score", "verdict"), [(None, "kept"), (0.5, "kept"), (0.51, "dropped")])
def test_what_is_surely_nude_goes(score: float | None, verdict: str) -> None:
    found = judge(a_clip(nsfw=score), ON)
    assert found.verdict == verdict
    if verdict == "dropped":
        assert (found.reason_stage, found.reason) == ("nsfw", "nsfw")


def test_it_is_one_of_the_judges_and_its_limit_is_drawn_when_it_is_on() -> None:
    assert judge_scored(a_clip(nsfw=0.9), CurateConfig(nsfw=ON)).reason == "nsfw"
    assert drawn_limits(CurateConfig(nsfw=ON))["nsfw"] == [0.5]
    assert drawn_limits(CurateConfig())["nsfw"] == []


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(RequestError, match="BEARD"):
        check_nsfw(NsfwConfig(method="nudenet", classes=("BEARD",)))
    with pytest.raises(RequestError, match="none given"):
        check_nsfw(NsfwConfig(method="nudenet", classes=()))
    check_nsfw(NsfwConfig(method="off", classes=()))


def test_the_detector_looks_or_says_how_to_get_it() -> None:
    """The extra is optional: a test of whichever there is."""
    jpegs = [jpeg_bytes(scenery(seed, 320, 180)) for seed in range(2)]
    if importlib.util.find_spec("nudenet") is None:
        with pytest.raises(RequestError, match=r"pip install 'i2vgen-ray\[nsfw\]'"):
            NsfwDetector(ON)
    else:
        score = NsfwDetector(ON).score(jpegs)
        assert 0.0 <= score < 0.5 and not np.isnan(score)
