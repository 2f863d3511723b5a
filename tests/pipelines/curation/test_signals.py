"""Motion, quality, borders, overlay text, single shot: measures and their judges."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from pipelines.curation import limits, motion, overlay_text, quality, single_shot
from pipelines.curation.borders import BordersConfig, find_crop
from pipelines.curation.overlay_text import TextMeasureConfig, text_area
from pipelines.curation.quality import count_flashes, look_of
from pipelines.curation.single_shot import colour_signature, single_shot_score
from pipelines.media import Crop
from pipelines.records import Clip
from tests.pipelines.pictures import scenery

GOOD = Clip(
    clip_id="c",
    source_id="s",
    kind="video",
    shot_index=0,
    start_frame=0,
    end_frame=75,
    start_s=0.0,
    end_s=3.0,
    fps=25.0,
    width_px=640,
    height_px=360,
    crop_x_px=0,
    crop_y_px=0,
    crop_w_px=640,
    crop_h_px=360,
    motion=0.05,
    sharpness=0.5,
    brightness=100.0,
    contrast=80.0,
    flashes=0.0,
    text_area=0.0,
    single_shot=0.99,
    license="CC-BY-4.0",
    consent="yes",
)
JUDGES = [
    (limits.judge, limits.LimitsConfig()),
    (motion.judge, motion.MotionConfig()),
    (quality.judge, quality.QualityConfig()),
    (overlay_text.judge, overlay_text.OverlayTextConfig()),
    (single_shot.judge, single_shot.SingleShotConfig()),
]


@pytest.mark.parametrize(
    ("changes", "stage", "reason"),
    [
        ({"end_s": 1.0}, "limits", "too_short"),
        ({"end_s": 1000.0}, "limits", "too_long"),
        ({"crop_h_px": 100}, "limits", "too_small"),
        ({"crop_w_px": 200}, "limits", "too_small"),
        ({"motion": 0.0}, "motion", "too_still"),
        ({"motion": 0.8}, "motion", "too_shaky"),
        ({"brightness": 2.0, "contrast": 3.0}, "quality", "black"),
        ({"contrast": 1.0}, "quality", "flat"),
        ({"flashes": 2.0}, "quality", "flashes"),
        ({"sharpness": 0.1}, "quality", "blurred"),
        ({"text_area": 0.2}, "overlay_text", "overlay_text"),
        ({"single_shot": 0.0}, "single_shot", "not_single_shot"),
    ],
)
def test_each_fault_has_its_reason(changes: dict, stage: str, reason: str) -> None:
    clip = dataclasses.replace(GOOD, **changes)
    for judge, config in JUDGES:
        clip = judge(clip, config)
    assert (clip.verdict, clip.reason_stage, clip.reason) == ("dropped", stage, reason)


def test_a_good_clip_a_still_and_an_unmeasured_one_pass() -> None:
    unmeasured = dict.fromkeys(
        ("motion", "sharpness", "brightness", "contrast", "flashes", "text_area", "single_shot")
    )
    still = dataclasses.replace(GOOD, kind="image", end_s=0.0, motion=None)
    for clip in (GOOD, still, dataclasses.replace(GOOD, **unmeasured)):
        for judge, config in JUDGES:
            assert judge(clip, config).verdict == "kept"


def test_rights() -> None:
    config = limits.LimitsConfig(licenses=("cc-by-4.0",), require_consent=True)
    assert limits.judge(GOOD, config).verdict == "kept"
    for changes in ({"license": None}, {"license": "CC-BY-NC"}, {"consent": None}):
        judged = limits.judge(dataclasses.replace(GOOD, **changes), config)
        assert judged.reason == "licence_refused"


def test_an_upright_clip_is_held_to_the_same_size() -> None:
    config = limits.LimitsConfig(min_width_px=640, min_height_px=360)
    upright = dataclasses.replace(GOOD, crop_w_px=360, crop_h_px=640)
    assert limits.judge(upright, config).verdict == "kept"


# --- motion ----------------------------------------------------------------------------------


def textured(seed: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (130, 200), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 20, 230, cv2.NORM_MINMAX)


@pytest.mark.parametrize(("dx", "dy"), [(4, 0), (-4, 0), (0, 4), (0, -4), (3, -3)])
def test_a_moving_thing_before_a_still_ground(dx: int, dy: int) -> None:
    ground, thing = textured(3)[:90, :160], textured(4)[:30, :30]
    before, after = ground.copy(), ground.copy()
    before[30:60, 60:90] = thing
    after[30 + dy : 60 + dy, 60 + dx : 90 + dx] = thing
    flow = motion.flow_between(before, after, 0.1)
    assert (flow.dx, flow.dy) == pytest.approx((dx / 16, dy / 16), abs=0.07)
    assert flow.magnitude < 0.1 * np.hypot(dx, dy)


def test_a_pan_is_motion_of_everything() -> None:
    ground = textured()
    flow = motion.flow_between(ground[20:110, 20:180], ground[20:110, 25:185], 0.1)
    assert (flow.dx, flow.dy) == pytest.approx((-5 / 16, 0), abs=0.05)
    assert flow.magnitude == pytest.approx(5 / 16, abs=0.06)


def test_stillness_is_no_motion() -> None:
    picture = textured()[:90, :160]
    assert motion.flow_between(picture, picture, 0.1).magnitude < 1e-4
    assert motion.summary([]) is None


def test_the_camera_explains_a_shift_and_a_zoom() -> None:
    y, x = np.mgrid[0:90, 0:160].astype(np.float32)
    flow = np.dstack([1.5 + 0.02 * (x - 80), -0.5 + 0.02 * (y - 45)])
    assert np.abs(motion.camera_flow(flow) - flow).max() < 0.05


# --- quality ---------------------------------------------------------------------------------


def test_looks() -> None:
    sharp = cv2.cvtColor(scenery(1, 384, 216), cv2.COLOR_RGB2GRAY)
    cv2.circle(sharp, (190, 100), 50, 230, -1)
    config = quality.QualityConfig()
    assert look_of(sharp).sharpness > config.min_sharpness
    assert look_of(cv2.GaussianBlur(sharp, (0, 0), 7)).sharpness < config.min_sharpness
    black = look_of(np.full((216, 384), 3, np.uint8))
    assert black.brightness == 3 and black.contrast == 0 and black.sharpness == 0
    assert look_of(np.zeros((2, 2), np.uint8)).sharpness == 0
    assert quality.median_look([]) is None


@settings(deadline=None)
@given(
    st.lists(st.integers(4, 40), min_size=1, max_size=4), st.integers(1, 4), st.integers(30, 120)
)
def test_flashes_are_counted(gaps: list[int], lasts: int, height: int) -> None:
    levels = [np.full(10, 100.0)]
    for gap in gaps:
        levels += [np.full(lasts, 100.0 + height), np.full(gap + 10, 100.0)]
    assert count_flashes(np.concatenate(levels), fps=25) == len(gaps)


def test_a_cut_in_brightness_or_a_slow_change_is_no_flash() -> None:
    assert count_flashes(np.repeat([60.0, 160.0], 30), fps=25) == 0
    assert count_flashes(100 + 50 * np.sin(np.arange(100) / 12), fps=25) == 0


# --- borders ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    top=st.integers(0, 60),
    bottom=st.integers(0, 60),
    left=st.integers(0, 90),
    right=st.integers(0, 90),
    seed=st.integers(0, 5),
)
def test_bars_are_cropped(top: int, bottom: int, left: int, right: int, seed: int) -> None:
    frame = scenery(seed, 320, 180).mean(axis=-1)
    frame[:top] = frame[180 - bottom :] = 1
    frame[:, :left] = frame[:, 320 - right :] = 1
    crop = find_crop([frame.mean(axis=1)], [frame.mean(axis=0)], BordersConfig())
    thin = (top and top < 2) or (bottom and bottom < 2) or 0 < left < 4 or 0 < right < 4
    if not thin:
        assert crop.x_px in (left, left + 1) and crop.y_px in (top, top + 1)
        assert 320 - right - 2 <= crop.x_px + crop.w_px <= 320 - right
        assert 180 - bottom - 2 <= crop.y_px + crop.h_px <= 180 - bottom
        assert crop.x_px % 2 == crop.y_px % 2 == 0


def test_a_dark_picture_keeps_its_edges() -> None:
    frame = np.tile(np.linspace(0, 40, 320), (180, 1))
    assert find_crop([frame.mean(axis=1)], [frame.mean(axis=0)], BordersConfig()) == Crop(
        0, 0, 320, 180
    )
    night = np.full((180, 320), 4.0)
    assert find_crop([night.mean(axis=1)], [night.mean(axis=0)], BordersConfig()).w_px == 320


@pytest.mark.parametrize(("black", "gain"), [(0.0, 0.12), (14.0, 1.0), (3.0, 0.4)])
def test_bars_of_a_night_scene_or_with_raised_blacks_are_cropped(black: float, gain: float) -> None:
    noise = np.random.default_rng(2).normal(0, 1.5, (180, 320))
    frame = scenery(4, 320, 180).mean(axis=-1) * gain + black
    frame[:22] = frame[160:] = black
    frame = np.clip(frame + noise, 0, 255)
    crop = find_crop([frame.mean(axis=1)], [frame.mean(axis=0)], BordersConfig())
    assert crop == Crop(0, 22, 320, 138)


# --- overlay text ----------------------------------------------------------------------------


def lettered(luma: np.ndarray, words: str, size_px: int) -> np.ndarray:
    picture = Image.fromarray(luma)
    ImageDraw.Draw(picture).text(
        (30, 150), words, fill=245, stroke_fill=10, stroke_width=2,
        font=ImageFont.load_default(size_px),
    )  # fmt: skip
    return np.asarray(picture)


def test_standing_words_are_found_and_scenery_is_not() -> None:
    grounds = [
        cv2.cvtColor(np.roll(scenery(8, 384, 216), shift, axis=1), cv2.COLOR_RGB2GRAY)
        for shift in (0, 9, 18)
    ]
    words = [lettered(g, "CALL NOW AND SAVE THIRTY", 24) for g in grounds]
    config = TextMeasureConfig()
    assert text_area(grounds, config) == 0
    found = text_area(words, config)
    assert found is not None and 0.05 < found < 0.2
    assert text_area(words, TextMeasureConfig(method="off")) is None


def test_moving_texture_is_no_text() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (216, 600), dtype=np.uint8)
    frames = [np.ascontiguousarray(noise[:, s : s + 384]) for s in (0, 40, 90)]
    assert text_area(frames, TextMeasureConfig()) == 0


# --- single shot -----------------------------------------------------------------------------


def signature(seed: int, shift: int = 0, lit: int = 0) -> np.ndarray:
    picture = np.roll(scenery(seed, 384, 216), shift, axis=1)
    picture = np.clip(picture.astype(int) + lit, 0, 255).astype(np.uint8)
    y, cr, cb = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb))
    return colour_signature((y, cb[::2, ::2].copy(), cr[::2, ::2].copy()))


def test_a_shot_that_moves_is_one_and_two_scenes_are_not() -> None:
    moving = [signature(1, shift=4 * i) for i in range(12)]
    assert (single_shot_score(moving) or 0) > 0.9
    for at in (1, 5, 11):
        cut = moving[:at] + [signature(2, shift=4 * i) for i in range(at, 12)]
        assert (single_shot_score(cut) or 0) < 0.5 or at in (1, 11)
    flash = [*moving[:5], signature(1, 20, lit=120), *moving[6:]]
    assert (single_shot_score(flash) or 0) > 0.5
    assert single_shot_score(moving[:2]) is None
