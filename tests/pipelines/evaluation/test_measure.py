"""Measures of a video: a perfect one scores as perfect, and a summary keeps its count."""

from __future__ import annotations

import numpy as np
import pytest

from model.encoders import load_clip
from pipelines.config import RequestError
from pipelines.evaluation.clips import choose_clips
from pipelines.evaluation.measure import MEASURES, enlarge, measure_video, summarise
from pipelines.evaluation.refinement import REFINEMENT_MEASURES
from pipelines.world.scenes import Scene, render_frames
from tests.pipelines.test_records import a_clip


def test_a_true_video_scores_as_true_and_a_wrong_one_lower() -> None:
    scene = Scene("circle", "red", "right", "textured", "still", 5)
    small = np.stack(list(render_frames(scene, 8, 112, 64, 8)))
    large = np.stack(list(render_frames(scene, 8, 320, 180, 8)))
    clip = load_clip()
    true = measure_video(small[0], scene.caption, small, large, clip)
    of_truth = {"truth_psnr_db", "truth_feature_distance", *REFINEMENT_MEASURES}
    assert set(true) == set(MEASURES) - of_truth
    assert true["first_frame_psnr_db"] == 99.0
    assert true["first_frame_ssim"] == pytest.approx(1.0)
    assert true["direction_right"] == 1.0 == true["object_direction_right"]
    assert true["object_kept"] == 1.0 and true["object_identity"] > 0.85
    assert true["refined_sharpness_gain"] > 0
    backwards = measure_video(small[0], scene.caption, small[::-1].copy(), large[::-1].copy(), clip)
    assert backwards["direction_right"] == 0.0 == backwards["object_direction_right"]
    assert backwards["first_frame_psnr_db"] < 40
    other = measure_video(small[0], "a green square", small, large, clip)
    assert other["prompt_similarity"] < true["prompt_similarity"]
    assert "direction_right" not in other


def test_what_was_only_enlarged_gains_nothing() -> None:
    scene = Scene("star", "blue", "left", "noise", "still", 6)
    small = np.stack(list(render_frames(scene, 4, 112, 64, 8)))
    values = measure_video(small[0], scene.caption, small, enlarge(small, 180, 320), load_clip())
    assert values["refined_sharpness_gain"] == 0.0 == values["refined_low_change"]


def test_without_a_refinement_nothing_is_said_of_one() -> None:
    scene = Scene("star", "blue", "left", "noise", "still", 6)
    small = np.stack(list(render_frames(scene, 4, 112, 64, 8)))
    values = measure_video(small[0], scene.caption, small, small, load_clip())
    assert not [name for name in values if name.startswith("refined")]


def test_a_summary_counts_only_where_a_measure_applies() -> None:
    summary = summarise([{"warp_error": 0.1, "direction_right": 1.0}, {"warp_error": 0.3}])
    assert summary["warp_error"]["mean"] == pytest.approx(0.2)
    assert summary["warp_error"]["standard_error"] == pytest.approx(0.1)
    assert summary["direction_right"] == {"mean": 1.0, "standard_error": 0.0, "videos": 1.0}


def test_unseen_clips_come_first_and_dropped_ones_never() -> None:
    clips = [a_clip(clip_id=f"c{i}", caption="x") for i in range(6)]
    clips.append(a_clip(clip_id="dropped", caption="x").dropped("motion", "too_still"))
    clips.append(a_clip(clip_id="silent"))
    chosen = choose_clips(clips, {"c0", "c1", "c2", "c3"}, 3)
    assert {c.clip_id for c in chosen[:2]} == {"c4", "c5"}
    assert choose_clips(clips, set(), 100) == choose_clips(clips[::-1], set(), 100)
    assert len(choose_clips(clips, set(), 100)) == 6
    with pytest.raises(RequestError, match="nothing to evaluate on"):
        choose_clips(clips[-2:], set(), 1)


def test_only_clips_whose_caption_names_a_direction_where_asked() -> None:
    clips = [a_clip(clip_id="a", caption="a red ring moving up over a gradient background")]
    clips.append(a_clip(clip_id="b", caption="a red ring over a gradient background"))
    assert [c.clip_id for c in choose_clips(clips, set(), 5, only_moving=True)] == ["a"]
    with pytest.raises(RequestError, match="names a direction"):
        choose_clips(clips[1:], set(), 5, only_moving=True)
