"""Where a network's first weights come from: every form that `--init` takes."""

import pickle
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from model.unet import UNetConfig, VideoUNet
from model.weights import read_tensors
from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import latest_checkpoint
from pipelines.training.config import TrainBaseConfig
from pipelines.training.loop.network_start import new_network, resolve_init
from pipelines.training.request import prepare_base
from tests.model.small_networks import randomise
from tests.model.vgen_layout import released
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_UNET, base_request, refine_request, train_here

ADDING = replace(TINY_UNET, image_integration="add")
INTEGRATIONS = pytest.mark.parametrize("model", [TINY_UNET, ADDING], ids=["concatenate", "add"])


def tiny(model=TINY_UNET) -> VideoUNet:
    unet = VideoUNet(model)
    randomise(unet, 1)
    return unet


def tiny_image_unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        block_out_channels=TINY_UNET.block_out_channels,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=128,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
    )
    randomise(unet, 2)
    return unet


def started(init: object, model=TINY_UNET) -> VideoUNet:
    return new_network(resolve_init(str(init), model), model, seed=0)


@INTEGRATIONS
@pytest.mark.parametrize("form", ["folder", "checkpoint", "safetensors", "pth"])
def test_a_video_network(tmp_path, model, form):
    source = tiny(model)
    if form in ("folder", "checkpoint"):
        source.save(tmp_path / "ema" if form == "checkpoint" else tmp_path)
        init = tmp_path
    elif form == "safetensors":
        init = tmp_path / "unet.safetensors"
        save_file(source.state_dict(), init)
    else:
        init = tmp_path / "unet.pth"
        torch.save(source.state_dict(), init)
    state = started(init, model).state_dict()
    assert all(torch.equal(state[name], value) for name, value in source.state_dict().items())


def test_vgens_pth(tmp_path):
    released(tiny(), tmp_path / "i2vgen.pth")
    state = started(tmp_path / "i2vgen.pth").state_dict()
    expected = read_tensors(tmp_path / "i2vgen.pth")
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


@INTEGRATIONS
@pytest.mark.parametrize("form", ["folder", "fp16", "safetensors", "bin"])
def test_an_image_network(tmp_path, model, form):
    image = tiny_image_unet()
    init = tmp_path / "unet"
    if form == "folder":
        image.save_pretrained(init)
    elif form == "fp16":
        image.half().save_pretrained(init, variant="fp16")
    elif form == "safetensors":
        init = tmp_path / "sd.safetensors"
        save_file(image.state_dict(), init)
    else:
        init = tmp_path / "sd.bin"
        torch.save(image.state_dict(), init)
    unet = started(init, model)
    assert all(parameter.dtype == torch.float32 for parameter in unet.parameters())
    state = unet.state_dict()
    for name, value in image.state_dict().items():
        taken = state[name][:, :4] if name == "conv_in.weight" else state[name]
        assert torch.equal(taken, value.float()), name
    assert not state["conv_in.weight"][:, 4:].any()


def test_unusable_weights_are_a_wrong_request(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    save_file({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    save_file({"conv_in.weight": torch.tensor([float("nan")])}, tmp_path / "nan.safetensors")
    for name, message in {
        "trap.pth": "refused",
        "cut.safetensors": "not a whole safetensors file",
        "other.safetensors": "holds no UNet",
        "nan.safetensors": "not finite",
        "absent": "no UNet there",
    }.items():
        with pytest.raises(RequestError, match=message) as refused:
            resolve_init(str(tmp_path / name), TINY_UNET)
        assert name in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "touched").exists()


def test_weights_of_the_other_integration_are_refused(tmp_path):
    tiny(ADDING).save(tmp_path)
    with pytest.raises(RequestError, match="does not fit this network"):
        started(tmp_path, TINY_UNET)


@pytest.mark.parametrize("integration", ["concatenate", "add"])
def test_the_request_says_how_the_image_joins(tmp_path, integration):
    latents = write_latents(tmp_path / "base")
    config = TrainBaseConfig(
        latents=str(latents), checkpoints=str(tmp_path / "out"), image_integration=integration
    )
    job = prepare_base(config).job
    assert UNetConfig.from_json(job.model).image_integration == integration
    # The embedded weights know one kind: the other starts anew by itself.
    assert job.start["from"] == ("unet" if integration == "concatenate" else "fresh")


def test_a_base_that_adds_trains_and_a_refinement_starts_from_it(tmp_path):
    latents = write_latents(tmp_path / "base")
    request = base_request(latents, tmp_path / "out", 4)
    request = replace(request, job=replace(request.job, model=ADDING.to_json()))
    assert not train_here(request)
    checkpoint = latest_checkpoint(Store(str(tmp_path / "out")))
    assert VideoUNet.load(tmp_path / "out" / checkpoint.name / "ema").config == ADDING

    refine_latents = write_latents(tmp_path / "refine", stage="refine")
    refine = refine_request(refine_latents, tmp_path / "refined", tmp_path / "out", 2, 0)
    assert refine.job.model["image_conditioning"] is False
    assert not train_here(refine)
