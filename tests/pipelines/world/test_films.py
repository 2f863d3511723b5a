"""The truth that is written beside a film is what the film shows."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records import REASONS
from pipelines.world.draft import SHOT_SECONDS, FilmSpec, draw_film, draw_still
from pipelines.world.encodings import ENCODINGS
from pipelines.world.films import film_frames, film_truth, write_film
from pipelines.world.plan import DROP_REASON_OF_KIND, FilmPlan, Transition, reencoded
from pipelines.world.transitions import mix
from pipelines.world.truth import FilmTruth, read_truth, truth_path

SMALL = (96, 54)
DEFECTS = tuple(kind for kind, reason in DROP_REASON_OF_KIND.items() if reason)

specs = st.builds(
    FilmSpec,
    size_px=st.sampled_from([(640, 360), (320, 180), (180, 320)]),
    fps=st.sampled_from([Fraction(12), Fraction(25), Fraction(30000, 1001)]),
    good_shots=st.integers(1, 4),
    transitions=st.lists(
        st.sampled_from(["cut", "dissolve", "fade", "wipe"]), min_size=1, max_size=3
    ).map(tuple),
    defects=st.lists(st.sampled_from(DEFECTS), max_size=2).map(tuple),
    borders=st.sampled_from(["none", "letterbox", "pillarbox"]),
    watermark=st.booleans(),
    variable_frame_rate=st.booleans(),
)


def plan_of(spec: FilmSpec, seed: int = 0) -> FilmPlan:
    return draw_film(spec, "film", (seed,))


def frames_of(plan: FilmPlan) -> np.ndarray:
    return np.stack(list(film_frames(plan)))


def decoded(path: Path) -> np.ndarray:
    """Every frame of the file as a player shows it, by PyAV alone."""
    with av.open(str(path)) as container:
        return np.stack(
            [
                np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                for frame in container.decode(video=0)
            ]
        )


def steps(frames_NHWC: np.ndarray) -> np.ndarray:
    """(N,) mean absolute change from the frame before, in grey levels; 0 for the first."""
    change = np.abs(np.diff(frames_NHWC.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return np.concatenate([[0.0], change])


@given(specs, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_shots_and_transitions_tile_the_film(spec: FilmSpec, seed: int) -> None:
    truth = film_truth(plan_of(spec, seed))
    pieces = [(s.start, s.end) for s in truth.shots] + [(g.start, g.end) for g in truth.gradual]
    edges = sorted(pieces)
    assert edges[0][0] == 0 and edges[-1][1] == truth.encoding.num_frames
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    assert all(start < end for start, end in edges)
    starts = {s.start for s in truth.shots}
    assert set(truth.cuts) | {g.end for g in truth.gradual} == starts - {0}
    assert len(truth.cuts) + len(truth.gradual) == len(truth.shots) - 1


@given(specs, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_shot_is_worth_keeping_or_has_a_known_reason(spec: FilmSpec, seed: int) -> None:
    truth = film_truth(plan_of(spec, seed))
    reasons = [s.must_drop for s in truth.shots]
    assert {r for r in reasons if r} <= set(REASONS)
    assert reasons.count(None) == spec.good_shots == len(truth.kept_shots)
    for shot in truth.shots:
        assert shot.crop.x >= 0 and shot.crop.x + shot.crop.w <= truth.encoding.width_px
        assert shot.crop.w % 2 == 0 and shot.crop.h % 2 == 0
        assert shot.crop.area_px < spec.size_px[0] * spec.size_px[1] or spec.borders == "none"
        for overlay in shot.overlays:
            assert overlay.share > 0.05 if overlay.kind != "watermark" else overlay.share < 0.03


def test_equal_seeds_give_equal_films_and_others_do_not() -> None:
    spec = FilmSpec(SMALL, Fraction(6), good_shots=2, defects=("shaky",))
    assert plan_of(spec, 3) == plan_of(spec, 3)
    assert np.array_equal(frames_of(plan_of(spec, 3)), frames_of(plan_of(spec, 3)))
    assert plan_of(spec, 3).shots[0].scene != plan_of(spec, 4).shots[0].scene


@pytest.mark.parametrize("encoding", [name for name, e in ENCODINGS.items() if not e.is_still])
def test_every_encoding_shows_the_frames_that_were_drawn(encoding: str, tmp_path: Path) -> None:
    plan = plan_of(FilmSpec((160, 90), Fraction(10), encoding, 1, defects=("short",)))
    truth = write_film(plan, tmp_path)
    shown, drawn = decoded(tmp_path / plan.file_name), frames_of(plan)
    assert shown.shape == drawn.shape
    assert np.abs(shown.astype(np.int16) - drawn).mean() < 6
    with av.open(str(tmp_path / plan.file_name)) as container:
        assert container.streams.video[0].codec_context.name.removeprefix("lib") in (
            truth.encoding.codec,
            "dav1d",
        )


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_a_turned_film_shows_upright(rotation_deg: int, tmp_path: Path) -> None:
    spec = FilmSpec((160, 90), Fraction(10), good_shots=1, rotation_deg=rotation_deg)
    plan = plan_of(spec)
    truth = write_film(plan, tmp_path)
    shown = decoded(tmp_path / plan.file_name)
    assert shown.shape[1:3] == (truth.encoding.height_px, truth.encoding.width_px) == (90, 160)
    assert np.abs(shown.astype(np.int16) - frames_of(plan)).mean() < 6


def test_a_variable_rate_leaves_ticks_out_and_keeps_their_times(tmp_path: Path) -> None:
    spec = FilmSpec((160, 90), Fraction(20), good_shots=2, variable_frame_rate=True)
    plan = plan_of(spec)
    truth = write_film(plan, tmp_path)
    with av.open(str(tmp_path / plan.file_name)) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    assert len(times_s) == truth.encoding.num_frames < plan.num_ticks
    gaps = np.unique(np.round(np.diff(times_s) * 20).astype(int))
    assert gaps.min() == 1 and 2 in gaps and gaps.max() <= 3
    assert times_s == pytest.approx(np.flatnonzero(plan.shown()) / 20, abs=1e-3)
    change = steps(decoded(tmp_path / plan.file_name))
    assert int(change.argmax()) == truth.cuts[0]


def test_a_cut_is_seen_and_a_transition_is_gradual() -> None:
    spec = FilmSpec(SMALL, Fraction(20), good_shots=4, transitions=("cut", "dissolve", "wipe"))
    plan = plan_of(spec, 5)
    truth, change = film_truth(plan), steps(frames_of(plan))
    (cut,) = truth.cuts
    within = np.delete(change, cut)
    assert change[cut] > 3 * within.max()
    assert [g.kind for g in truth.gradual] == ["dissolve", "wipe"]
    for span in truth.gradual:
        quiet = np.median(change[1 : truth.shots[0].end])
        assert change[span.start : span.end].mean() > 1.5 * quiet


def test_a_fade_passes_through_black() -> None:
    plan = plan_of(FilmSpec(SMALL, Fraction(20), good_shots=2, transitions=("fade",)))
    (span,) = film_truth(plan).gradual
    brightness = frames_of(plan).mean(axis=(1, 2, 3))
    assert brightness[span.start : span.end].min() < 1
    assert brightness[: span.start].min() > 20


@pytest.mark.parametrize("kind", ["dissolve", "fade", "wipe"])
def test_no_step_of_a_transition_shows_one_shot_alone(kind: str) -> None:
    old, new = np.full((40, 60, 3), 200, np.uint8), np.full((40, 60, 3), 117, np.uint8)
    for direction in ("left", "right", "up", "down"):
        transition = Transition(kind, 9, direction)
        mixed = [mix(transition, step, old, new) for step in range(9)]
        assert not any(np.array_equal(frame, old) for frame in mixed)
        assert not any(np.array_equal(frame, new) for frame in mixed)
        assert mixed[0].mean() > mixed[-1].mean()


def test_a_wipe_goes_where_it_says() -> None:
    old, new = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    halfway = mix(Transition("wipe", 9, "right"), 4, old, new)
    assert halfway[:, :20].min() == 255 and halfway[:, 40:].max() == 0
    halfway = mix(Transition("wipe", 9, "up"), 4, old, new)
    assert halfway[25:].min() == 255 and halfway[:15].max() == 0


def one_of_kind(kind: str, **changes: object) -> tuple[FilmTruth, np.ndarray, int]:
    """A film of a good shot and one of this kind; its truth, frames, and which shot it is."""
    spec = FilmSpec((160, 90), Fraction(20), good_shots=1, defects=(kind,), **changes)  # type: ignore[arg-type]
    plan = plan_of(spec, 2)
    truth = film_truth(plan)
    index = next(s.index for s in truth.shots if s.kind == kind)
    return truth, frames_of(plan), index


def test_static_black_and_flat_shots_do_not_move() -> None:
    for kind in ("static", "black", "flat"):
        truth, frames, index = one_of_kind(kind)
        shot = truth.shots[index]
        span = frames[shot.start : shot.end]
        assert np.array_equal(span[0], span[-1])
        assert (span.max() == 0) == (kind == "black")
        assert (np.ptp(span[0], axis=(0, 1)).max() == 0) == (kind != "static")


def test_flashes_are_where_the_truth_says_and_are_no_cuts() -> None:
    truth, frames, index = one_of_kind("flashes")
    shot = truth.shots[index]
    brightness = frames.mean(axis=(1, 2, 3))
    usual = np.median(brightness[shot.start : shot.end])
    bright = {n for n in range(shot.start, shot.end) if brightness[n] > usual + 40}
    assert bright == set(truth.flash_frames) and len(bright) >= 3
    assert not bright & set(truth.cuts)


def test_a_blurred_shot_is_blurred_and_a_shaky_one_shakes() -> None:
    truth, frames, index = one_of_kind("blurred")
    detail = np.abs(np.diff(frames.astype(np.int16), axis=2)).mean(axis=(1, 2, 3))
    blurred, good = truth.shots[index], truth.shots[1 - index]
    assert detail[blurred.start] < 0.7 * detail[good.start]
    truth, frames, index = one_of_kind("shaky")
    shaky, good = truth.shots[index], truth.shots[1 - index]
    change = steps(frames)
    assert np.median(change[shaky.start + 1 : shaky.end]) > 3 * np.median(
        change[good.start + 1 : good.end]
    )


def test_words_are_inside_their_box_and_only_in_their_shot() -> None:
    truth, frames, index = one_of_kind("captioned")
    shot = truth.shots[index]
    (overlay,) = shot.overlays
    box = overlay.text_box
    inside = frames[shot.start : shot.end, box.y : box.y + box.h, box.x : box.x + box.w]
    assert (inside.min(axis=(1, 2, 3)) < 60).all() and (inside.max(axis=(1, 2, 3)) > 230).all()
    assert overlay.share == pytest.approx(box.area_px / (160 * 90), abs=1e-4)
    assert truth.shots[1 - index].overlays == ()


@pytest.mark.parametrize("borders", ["letterbox", "pillarbox"])
def test_the_crop_is_the_picture_without_its_bars(borders: str) -> None:
    plan = plan_of(FilmSpec((160, 90), Fraction(6), good_shots=1, borders=borders))
    crop, lit = film_truth(plan).shots[0].crop, frames_of(plan).max(axis=(0, 3)) > 0
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    assert (rows[0], rows[-1] + 1) == (crop.y, crop.y + crop.h)
    assert (columns[0], columns[-1] + 1) == (crop.x, crop.x + crop.w)


def test_a_reencode_shows_the_same_film_and_says_so(tmp_path: Path) -> None:
    plan = plan_of(FilmSpec((160, 90), Fraction(10), good_shots=1, defects=("short",)))
    again = reencoded(plan, "again", ENCODINGS["mpeg4"], (80, 44))
    truth, first = write_film(again, tmp_path), film_truth(plan)
    assert truth.duplicate_of is not None and truth.duplicate_of.file == "film.mp4"
    assert (truth.cuts, len(truth.shots)) == (first.cuts, len(first.shots))
    assert {s.must_drop for s in truth.shots} == {"duplicate", "too_short"}
    assert [s.duplicate_of.shot for s in truth.shots if s.duplicate_of] == [0, 1]
    shown = decoded(tmp_path / "again.avi")
    assert shown.shape[1:3] == (44, 80)
    drawn = np.stack([cv2.resize(frame, (80, 44)) for frame in frames_of(plan)])
    assert np.abs(shown.astype(np.int16) - drawn).mean() < 6


def test_boxes_of_a_scaled_film_are_in_its_own_pixels() -> None:
    spec = FilmSpec((160, 90), good_shots=1, borders="letterbox", watermark=True)
    whole = film_truth(plan_of(spec)).shots[0]
    half = film_truth(reencoded(plan_of(spec), "half", ENCODINGS["h264"], (80, 46))).shots[0]
    assert half.crop.w == 80 and half.crop.y == round(whole.crop.y * 46 / 90)
    assert half.overlays[0].box.w == pytest.approx(whole.overlays[0].box.w / 2, abs=1)
    assert half.overlays[0].share == pytest.approx(whole.overlays[0].share, rel=0.2)


def test_a_repeated_shot_names_its_first_showing() -> None:
    first = plan_of(FilmSpec(SMALL, Fraction(10), good_shots=2))
    spec = FilmSpec(SMALL, Fraction(20), good_shots=1, repeats=((0, 1),))
    truth = film_truth(draw_film(spec, "second", (9,), [first]))
    (repeat,) = (s for s in truth.shots if s.duplicate_of)
    assert (repeat.must_drop, repeat.duplicate_of.file) == ("duplicate", "film.mp4")  # type: ignore[union-attr]
    assert repeat.scene == film_truth(first).shots[1].scene


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_a_still_is_one_frame_and_its_caption(encoding: str, tmp_path: Path) -> None:
    plan = draw_still((128, 96), encoding, "stills/a", (1,))
    truth = write_film(plan, tmp_path)
    assert truth.kind == "still" and truth.encoding.num_frames == 1
    assert decoded(tmp_path / plan.file_name).shape == (1, 96, 128, 3)
    assert truth.shots[0].still_caption == plan.shots[0].scene.still_caption


def test_the_truth_survives_its_file(tmp_path: Path) -> None:
    spec = FilmSpec(
        SMALL, Fraction(8), good_shots=2, transitions=("fade",), defects=("captioned", "flashes")
    )
    plan = plan_of(spec)
    truth = write_film(plan, tmp_path)
    assert read_truth(truth_path(tmp_path / plan.file_name)) == truth


def test_shot_lengths_stay_within_what_a_scene_shows() -> None:
    longest_s = SHOT_SECONDS["scene"][1] + 0.5
    for seed in range(20):
        plan = plan_of(FilmSpec(fps=Fraction(24), transitions=("cut", "dissolve")), seed)
        assert all(shot.num_ticks / plan.fps <= longest_s for shot in plan.shots)
