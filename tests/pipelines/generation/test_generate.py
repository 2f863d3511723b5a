"""From checkpoints to a video, with untrained networks: the plumbing, not the picture."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from model.presets import demo
from pipelines.config import RequestError, TrackingConfig, parse_request
from pipelines.generation.config import GENERATE_PRESETS, GenerateConfig
from pipelines.generation.generate import (
    contact_strip,
    even_sized,
    generate,
    prepare,
    sample_frames,
)
from pipelines.media import read_clip_frames, write_image
from pipelines.storage import Store, sha256_of_file
from pipelines.training.checkpoints.checkpoint import CheckpointHeader
from pipelines.training.checkpoints.publishing import publish_checkpoint
from pipelines.training.latents.clip_encoder import weights_digest
from tests.model.small_networks import randomise
from tests.pipelines.training.small_dataset import picture
from tests.pipelines.training.tiny_jobs import TINY_UNET


@pytest.fixture(scope="module")
def encoders():
    from model.encoders import load_clip, load_vae

    modules = {"vae": load_vae().vae, "clip": load_clip().model}
    return {
        role: {"name": "embedded", "digest": weights_digest(module)}
        for role, module in modules.items()
    }


def write_checkpoint(folder, stage: str, encoders, size_px) -> None:
    """A checkpoint of a tiny network of random weights, published as training does."""
    from model.unet import VideoUNet

    preset = demo()
    unet = VideoUNet(dataclasses.replace(TINY_UNET, image_conditioning=stage == "base"))
    randomise(unet)  # or the last layer, all zeros, would hide what is asked of the others
    diffusion = preset.base_diffusion if stage == "base" else preset.refine_diffusion

    def fill(path) -> None:
        unet.save(path / "unet")
        unet.save(path / "ema")

    def header(files, digest) -> CheckpointHeader:
        known = {"uri": "somewhere", "digest": "0" * 32}
        return CheckpointHeader(
            1, digest, stage, 1, "joint", True, 1.0, 1, None, None, known, known, encoders,
            size_px, "demo", unet.config.to_json(), dataclasses.asdict(diffusion), [], {}, "", "",
            files,
        )  # fmt: skip

    publish_checkpoint(Store.open(str(folder)), 1, fill, header)


@pytest.fixture(scope="module")
def models(tmp_path_factory, encoders):
    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "base", "base", encoders, (56, 32))
    write_checkpoint(folder / "refine", "refine", encoders, (80, 45))
    write_image(folder / "image.png", picture(0, 0))
    return folder


def config(models, out, **changes) -> GenerateConfig:
    given = {
        "base": str(models / "base"),
        "refine": str(models / "refine"),
        "image": str(models / "image.png"),
        "prompt": "a red circle moving left over a textured background",
        "out": str(out),
        "frames": 4,
        "base_steps": 2,
        "refine_steps": 2,
        "threads": 1,
        "tracking": TrackingConfig(enabled=False),
    }
    return GenerateConfig(**{**given, **changes})


def test_a_video_says_what_made_it_and_is_made_again_bit_by_bit(models, tmp_path):
    result = generate(prepare(config(models, tmp_path / "one.mp4")))
    # 45 rows: an odd size of the refinement is written as the video that 4:2:0 can hold.
    assert (result["frames"], result["width_px"], result["height_px"]) == (4, 80, 44)
    frames = read_clip_frames(tmp_path / "one.mp4", fps=8, width_px=80, height_px=44)
    assert frames.shape == (4, 44, 80, 3)
    facts = json.loads((tmp_path / "one.json").read_text())
    assert facts["video"]["sha256"] == sha256_of_file(tmp_path / "one.mp4")
    assert facts["settings"]["short_prompt"] == "a red circle"
    assert set(facts["checkpoints"]) == {"base", "refine"}
    assert (tmp_path / "one.png").is_file()
    generate(prepare(config(models, tmp_path / "two.mp4")))
    assert sha256_of_file(tmp_path / "two.mp4") == sha256_of_file(tmp_path / "one.mp4")


@pytest.mark.parametrize("ending", [".mp4", ".png", ".json"])
def test_no_file_of_the_video_takes_the_place_of_the_image(models, tmp_path, ending):
    image = tmp_path / f"cat{ending}"
    image.write_bytes((models / "image.png").read_bytes())
    with pytest.raises(RequestError, match=f"would write cat{ending} over --image"):
        prepare(config(models, tmp_path / "cat.mp4", image=str(image)))
    assert image.read_bytes() == (models / "image.png").read_bytes()


def test_a_video_that_cannot_be_written_is_refused_before_it_is_made(models, tmp_path):
    (tmp_path / "folder.png").mkdir()
    places = {
        tmp_path / "folder.mp4": "is a folder",
        tmp_path / f"{'x' * 300}.mp4": "File name too long",
        models / "image.png" / "video.mp4": "give another place",
        "/proc/video.mp4": "give another place",
        "nowhere://bucket/video.mp4": "cannot be reached",
        tmp_path / "video.avi": "ends in .mp4",
    }
    for out, reason in places.items():
        with pytest.raises(RequestError, match=reason):
            prepare(config(models, out))
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"vae": {', '"eav": {'),
        ('"schedule": "cosine"', '"schedule": "sine"'),
        ('"cosine_s"', '"cosine_z"'),
        ("    56,", "    0,"),
        ("    56,", '    "wide",'),
    ],
)
def test_a_damaged_header_is_refused(models, tmp_path, before, after):
    shutil.copytree(models / "base", tmp_path / "base")
    header = tmp_path / "base" / "step-00000001" / "checkpoint.json"
    values = json.loads(header.read_text())
    del values["seal"]  # as whoever edits it by hand would
    text = json.dumps(values, indent=2)
    assert before in text
    header.write_text(text.replace(before, after, 1))
    with pytest.raises(RequestError, match=r"damaged header|not readable as a checkpoint"):
        prepare(config(models, tmp_path / "video.mp4", base=str(tmp_path / "base")))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--base-guidance", "-1"),
        ("--refine-guidance", "1e30"),
        ("--frames", "10000000"),
        ("--fps", "1000000"),
        ("--seed", str(2**63)),
        ("--threads", "100000"),
    ],
)
def test_impossible_numbers_are_refused(flag, value):
    with pytest.raises(RequestError, match="must be at"):
        parse_request(GenerateConfig, GENERATE_PRESETS, [flag, value], prog="", description="")


def test_the_base_alone_can_generate(models, tmp_path):
    result = generate(prepare(config(models, tmp_path / "base.mp4", refine="none")))
    assert (result["width_px"], result["height_px"]) == (56, 32)


LONG = {
    "frames": 7, "window": 4, "overlap": 2, "refine_start": "inversion", "inversion_steps": 2,
    "base_sampler": "dpmpp_2m",
}  # fmt: skip


def test_a_long_video_records_its_settings_and_is_the_same_offloaded(models, tmp_path):
    """Where modules sit is no part of the video, so not of its record: the files are equal."""
    result = generate(prepare(config(models, tmp_path / "one.mp4", **LONG)))
    assert result["frames"] == 7
    settings = json.loads((tmp_path / "one.json").read_text())["settings"]
    assert settings | LONG == settings
    assert settings["precision"] == "float32" and settings["vae_tile_px"] == 0
    generate(prepare(config(models, tmp_path / "two.mp4", **LONG, offload=True)))
    assert sha256_of_file(tmp_path / "two.mp4") == sha256_of_file(tmp_path / "one.mp4")


SHORT_WINDOWS = {"frames": 5, "window": 4, "overlap": 2}


def test_every_sampling_setting_reaches_the_video(models, tmp_path):
    """Each changes the pixels of the last frame."""

    def last_frame(name: str, **changes) -> np.ndarray:
        out = tmp_path / f"{name}.mp4"
        generate(prepare(config(models, out, **SHORT_WINDOWS | changes)))
        return read_clip_frames(out, fps=8, width_px=80, height_px=44)[-1]

    plain = last_frame("plain")
    for changes in (
        {"window": 3}, {"refine_start": "inversion"}, {"base_sampler": "dpmpp_2m_sde"},
        {"refine_sampler": "ddim"}, {"precision": "bfloat16"},
    ):  # fmt: skip
        assert (last_frame("changed", **changes) != plain).any(), changes


def test_tiles_and_batches_cost_no_more_than_rounding(models, tmp_path):
    """Of the cascade's own frames: a lossy video code makes much of a pixel that is one off."""

    def frames(**changes) -> np.ndarray:
        request = prepare(config(models, tmp_path / "v.mp4", **SHORT_WINDOWS | changes))
        return sample_frames(request).astype(int)

    plain = frames()
    for changes in ({"vae_tile_px": 64}, {"windows_at_once": 2}):
        # Off by one in a pixel of 10,000; bfloat16 is 1 off on average, another window 20.
        assert np.abs(frames(**changes) - plain).mean() <= 0.01, changes


def test_a_dry_run_says_sizes_windows_steps_and_memory(models, tmp_path):
    request = prepare(config(models, tmp_path / "v.mp4", **LONG))
    text = "\n".join(request.lines())
    for words in (
        "7 frames at 8 frames/s", "3 windows of 4 frames", "base at 56x32 px: dpmpp_2m, 2 steps, "
        "6 network evaluations", "inversion at 80x45 px: 2 steps, 6 network evaluations, unguided",
        "refine at 80x45 px: ddim, 2 steps, 6", "memory of base: about", "together about",
    ):  # fmt: skip
        assert words in text, text
    assert request.plan.steps == 2 * 3 + 2 + 2
    assert not (tmp_path / "v.mp4").exists()
    short = prepare(config(models, tmp_path / "v.mp4", refine="none", frames=0))
    assert short.plan.frames == 16 and short.plan.passes == 1 and short.plan.steps == 2


def test_memory_is_said_to_fall_where_it_does(models, tmp_path):
    def together(**changes) -> str:
        return prepare(config(models, tmp_path / "v.mp4", frames=16, **changes)).lines()[-1]

    said = {together(), together(offload=True), together(precision="bfloat16"), together(window=8)}
    assert len(said) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 4, "overlap": 4}, "--overlap 4: must be less than the window's 4"),
        ({"overlap": 16}, "must be less than the window's 16"),
        ({"base_steps": 1001}, "--base_steps 1001: there are 1000 noise levels"),
        ({"refine_steps": 601}, "--refine_steps 601: there are 600"),
        ({"refine_start": "inversion", "inversion_steps": 601}, "--inversion_steps 601"),
        ({"vae_tile_px": 32}, "--vae_tile_px: a tile of 32 px is too small"),
        ({"device": "cuda"}, "--device cuda"),
    ],
)
def test_impossible_sampling_is_refused_in_one_line(models, tmp_path, changes, words):
    import torch

    if changes == {"device": "cuda"} and torch.cuda.is_available():
        prepare(config(models, tmp_path / "v.mp4", **changes))  # possible here
        return
    with pytest.raises(RequestError) as refused:
        prepare(config(models, tmp_path / "v.mp4", **changes))
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "flags", [("--frames", "-1"), ("--overlap", "0"), ("--precision", "int8"), ("--window", "x")]
)
def test_settings_out_of_range_are_refused_on_the_command_line(flags):
    from pipelines.config import parse_request
    from pipelines.generation.config import GENERATE_PRESETS

    with pytest.raises(RequestError, match=flags[0][2:]):
        parse_request(GenerateConfig, GENERATE_PRESETS, flags, prog="p", description="")


def test_wrong_requests_are_refused_in_one_line(models, tmp_path):
    out = tmp_path / "video.mp4"
    with pytest.raises(RequestError, match="no such file"):
        prepare(config(models, out, image=str(tmp_path / "none.png")))
    (tmp_path / "words.png").write_text("these are words")
    with pytest.raises(RequestError, match="not a picture that can be read"):
        prepare(config(models, out, image=str(tmp_path / "words.png")))
    with pytest.raises(RequestError, match=r"ends in \.mp4"):
        prepare(config(models, tmp_path / "video.gif"))
    with pytest.raises(RequestError, match="checkpoint of the refine stage"):
        prepare(config(models, out, base=str(models / "refine")))


def test_encoders_that_changed_since_training_are_refused(models, tmp_path, encoders):
    changed = {**encoders, "clip": {"name": "embedded", "digest": "f" * 32}}
    write_checkpoint(tmp_path / "base", "base", changed, (56, 32))
    request = prepare(
        config(models, tmp_path / "video.mp4", base=str(tmp_path / "base"), refine="none")
    )
    with pytest.raises(RequestError, match="trained on latents of another clip"):
        generate(request)
    assert not (tmp_path / "video.mp4").exists()


def test_odd_sizes_lose_a_row_and_the_strip_stands_side_by_side():

    frames = np.zeros((9, 45, 81, 3), dtype=np.uint8)
    assert even_sized(frames).shape == (9, 44, 80, 3)
    assert contact_strip(picture(0, 0), frames).shape == (45, 81 * 9, 3)
