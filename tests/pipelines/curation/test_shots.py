import numpy as np
import pytest

from pipelines.curation.gradual import GradualConfig, find_gradual
from pipelines.curation.shots import QuickAdaptiveDetector, ShotFinder, ShotsConfig, Span
from pipelines.media import opened_pictures
from tests.pipelines.pictures import moving_square, real_clip

FPS = 25.0


def spans_of(frames: list[np.ndarray]) -> list[Span]:
    finder = ShotFinder(FPS, ShotsConfig())
    spans = []
    for frame in frames:
        spans += [span for span, _ in finder.push(np.ascontiguousarray(frame[..., ::-1]))]
    return spans + [span for span, _ in finder.finish()]


def mixed(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    shares = (np.arange(len(a)) + 1) / (len(a) + 1)
    return [(x * (1 - s) + y * s).astype(np.uint8) for x, y, s in zip(a, b, shares, strict=True)]


def assert_tiles(spans: list[Span], num_frames: int) -> None:
    assert [s.start for s in spans] == [0] + [s.end for s in spans[:-1]]
    assert spans[-1].end == num_frames


def test_hard_cuts_are_exact() -> None:
    lengths = [30, 12, 41, 5, 25]
    frames = [f for seed, n in enumerate(lengths) for f in moving_square(seed, n)]
    assert [s.start for s in spans_of(frames)] == [0, 30, 42, 83, 88]


def test_real_cuts_are_exact() -> None:
    finder, spans = ShotFinder(FPS, ShotsConfig()), []
    with opened_pictures(real_clip("bikes.mp4")) as stream:
        for timed in stream.pictures():
            spans += [span for span, _ in finder.push(timed.picture.bgr(160))]
    spans += [span for span, _ in finder.finish()]
    assert [s.start for s in spans] == [0, 30, 76, 137, 187, 242]


@pytest.mark.parametrize("lasts", [6, 12, 20, 40])
def test_a_dissolve_is_a_span_of_its_own(lasts: int) -> None:
    one, two = moving_square(11, 50 + lasts), moving_square(12, 50 + lasts)
    spans = spans_of(one[:50] + mixed(one[50:], two[:lasts]) + two[lasts:])
    assert_tiles(spans, 100 + lasts)
    assert [s.kind for s in spans] == ["shot", "dissolve", "shot"]
    assert abs(spans[1].start - 50) <= 2 and abs(spans[1].end - 50 - lasts) <= 2
    assert spans[1].start <= 50 and spans[1].end >= 50 + lasts


@pytest.mark.parametrize("lasts", [10, 18])
def test_a_wipe_is_one_too(lasts: int) -> None:
    one, two = moving_square(21, 50 + lasts), moving_square(22, 50 + lasts)
    between = []
    for step in range(lasts):
        frame = one[50 + step].copy()
        edge = round((step + 1) / (lasts + 1) * frame.shape[1])
        frame[:, :edge] = two[step][:, :edge]
        between.append(frame)
    spans = spans_of(one[:50] + between + two[lasts:])
    assert len(spans) == 3
    assert abs(spans[1].start - 50) <= 3 and abs(spans[1].end - 50 - lasts) <= 3


@pytest.mark.parametrize("black", [0, 4])
def test_a_fade_through_black_is_one_span(black: int) -> None:
    one, two = moving_square(31, 50), moving_square(32, 50)
    shares = np.linspace(1, 0, 10)
    out = [(one[-1] * s).astype(np.uint8) for s in shares]
    into = [(two[0] * s).astype(np.uint8) for s in shares[::-1]]
    dark = [np.zeros_like(one[0])] * black
    spans = spans_of(one + out + dark + into + two)
    assert [s.kind for s in spans] == ["shot", "fade", "shot"]
    assert abs(spans[1].start - 50) <= 2 and abs(spans[1].end - 70 - black) <= 2


def test_a_flash_is_no_cut() -> None:
    frames = moving_square(41, 60)
    for index in (20, 21, 40):
        frames[index] = (frames[index] * 0.2 + 200).clip(0, 255).astype(np.uint8)
    assert spans_of(frames) == [Span(0, 60)]


def test_a_hard_cut_to_black_is_a_cut() -> None:
    frames = moving_square(51, 30) + [np.zeros((90, 160, 3), np.uint8)] * 30
    assert [s.start for s in spans_of(frames + moving_square(52, 30))] == [0, 30, 60]


def test_slow_movement_is_no_transition() -> None:
    ground = np.concatenate([moving_square(61, 1)[0], moving_square(62, 1)[0]], axis=1)
    pan = [ground[:, i * 2 : i * 2 + 160] for i in range(80)]
    assert spans_of([np.ascontiguousarray(f) for f in pan]) == [Span(0, 80)]


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_short_films_have_one_shot(num_frames: int) -> None:
    assert spans_of(moving_square(71, num_frames)) == [Span(0, num_frames)]


def test_nothing_is_found_in_noise_or_stillness() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (60, 18, 32, 3), dtype=np.uint8)
    still = np.repeat(noise[:1], 60, axis=0)
    assert find_gradual(noise, FPS, GradualConfig()) == []
    assert find_gradual(still, FPS, GradualConfig()) == []


def test_memory_is_bounded_in_a_long_shot_and_a_late_dissolve_is_found() -> None:
    one, two = moving_square(61, 40), moving_square(62, 40)
    finder, spans, held = ShotFinder(FPS, ShotsConfig()), [], 0
    film = [one[0]] * 9000 + mixed(one[:20], two[:20]) + two[20:] + [two[-1]] * 60
    for frame in film:
        spans += [span for span, _ in finder.push(frame)]
        held = max(held, len(finder._thumbs))
    spans += [span for span, _ in finder.finish()]
    assert held <= 4096
    assert_tiles(spans, len(film))
    assert [s.kind for s in spans] == ["shot", "dissolve", "shot"]
    assert abs(spans[1].start - 9000) <= 2 and abs(spans[1].end - 9020) <= 2


def test_the_quick_score_is_pyscenedetect_s_own() -> None:
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    quick, original = QuickAdaptiveDetector(), AdaptiveDetector()
    for index, frame in enumerate(moving_square(71, 12) + moving_square(72, 12)):
        timecode = FrameTimecode(index, FPS)
        assert quick.process_frame(timecode, frame) == original.process_frame(timecode, frame)
        assert quick._frame_score == pytest.approx(original._frame_score, abs=1e-9)
