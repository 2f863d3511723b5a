import pytest

from pipelines.config import config_hash, from_plain, parse_request, to_plain
from pipelines.generation.config import GENERATE_PRESETS
from pipelines.training.config import (
    ENCODE_PRESETS,
    TRAIN_BASE_PRESETS,
    TRAIN_REFINE_PRESETS,
    TrainRefineConfig,
)
from pipelines.training.stages import (
    Phase,
    RegimenConfig,
    base_phases,
    ema_decay_at,
    learning_rate_factor,
    paper_base,
    paper_refine,
    phase_at,
    refine_phases,
    total_steps,
)


def test_the_papers_numbers():
    """Facts: frames 1:1:1:5, rates 1:2:4:1, γ 0.2, T_r 600, offset noise 0.1, EMA 0.9999."""
    base, refine = paper_base(), paper_refine()
    assert base.mixture.frames == (1, 8, 16, 32)
    assert base.mixture.frames_weights == (1, 1, 1, 5)
    assert base.mixture.fps == (1, 4, 8, 16)
    assert base.mixture.fps_weights == (1, 2, 4, 1)
    assert base.learning.spatial_rate == refine.learning.spatial_rate == 0.2
    assert base.learning.noise_range == 1000
    assert refine.learning.noise_range == 600
    assert base.learning.offset_noise == 0.1
    assert base.learning.ema_decay == 0.9999
    assert base.text == "text"
    assert refine.text == "short_text"


def test_steps_fall_into_phases():
    phases = refine_phases(30, 10)
    assert total_steps(phases) == 40
    assert phase_at(phases, 0) == (0, 0)
    assert phase_at(phases, 29) == (0, 29)
    assert phase_at(phases, 30) == (1, 0)
    assert phase_at(phases, 39) == (1, 9)
    with pytest.raises(ValueError, match="behind the last phase"):
        phase_at(phases, 40)
    assert refine_phases(0, 5) == (Phase("premium", "premium", 5),)
    assert [phase.tier for phase in base_phases(7)] == ["base"]


def test_rates_warm_up_and_averages_forget_their_youth():
    learning = RegimenConfig(warmup_steps=4, ema_decay=0.99)
    factors = [learning_rate_factor(learning, step) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate_factor(RegimenConfig(warmup_steps=0), 0) == 1.0
    assert ema_decay_at(learning, 0) == 0.1
    assert ema_decay_at(learning, 10_000) == 0.99


@pytest.mark.parametrize(
    "presets",
    [ENCODE_PRESETS, TRAIN_BASE_PRESETS, TRAIN_REFINE_PRESETS, GENERATE_PRESETS],
    ids=["encode", "train_base", "train_refine", "generate"],
)
@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_presets_survive_the_trip_as_json(presets, preset):
    config = presets[preset]()
    again = from_plain(type(config), to_plain(config))
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_the_contracts_flags_are_understood():
    given = ["--latents", "l", "--checkpoints", "c", "--base", "b", "--steps", "7"]
    config = parse_request(
        TrainRefineConfig,
        TRAIN_REFINE_PRESETS,
        [*given, "--premium-steps", "3", "--seed", "5"],
        prog="train_refine.py",
        description="",
    ).config
    assert (config.base, config.steps, config.premium_steps, config.seed) == ("b", 7, 3, 5)
