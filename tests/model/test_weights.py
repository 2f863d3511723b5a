"""Weights travel to diffusers and back, and one network starts from another."""

import json
import pickle
import re

import pytest
import torch
from diffusers import I2VGenXLUNet, UNet2DConditionModel, UNet3DConditionModel
from safetensors.torch import save_file

from model.unet import UNetConfig, VideoUNet
from model.weights import (
    init_from_image_unet,
    init_from_released,
    init_refinement_from_base,
    read_tensors,
    read_unet_directory,
)
from tests.model.small_networks import (
    CONTEXT,
    SHAPE,
    base_inputs,
    randomise,
    relative_error,
    video_unet,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def image_unet(seed: int = 4) -> UNet2DConditionModel:
    """SD 2.1's layout, small. `attention_head_dim` means the number of heads in this class."""
    unet = UNet2DConditionModel(
        block_out_channels=SHAPE["block_out_channels"],
        norm_num_groups=SHAPE["norm_num_groups"],
        cross_attention_dim=CONTEXT,
        attention_head_dim=[channels // 16 for channels in SHAPE["block_out_channels"]],
        use_linear_projection=True,
    ).eval()
    randomise(unet, seed)
    return unet


def state_is_equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------- directories


@pytest.mark.parametrize("image_conditioning", [True, False], ids=["base", "refine"])
def test_diffusers_loads_what_we_save(tmp_path, image_conditioning):
    unet = video_unet(image_conditioning)
    unet.save(tmp_path / "unet")
    names = {path.name for path in (tmp_path / "unet").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    kind = I2VGenXLUNet if image_conditioning else UNet3DConditionModel
    theirs = kind.from_pretrained(tmp_path, subfolder="unet").eval()
    assert state_is_equal(theirs.state_dict(), unet.state_dict())
    inputs = base_inputs(1, 2, 8, 8)
    if not image_conditioning:
        inputs = {key: inputs[key] for key in ("sample", "timestep", "encoder_hidden_states")}
    with torch.no_grad():
        assert relative_error(unet(**inputs), theirs(**inputs).sample) <= 1e-5


@pytest.mark.parametrize("kind", [I2VGenXLUNet, UNet3DConditionModel])
def test_we_load_what_diffusers_saves(tmp_path, kind):
    theirs = kind(**SHAPE)
    theirs.save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / "diffusion_pytorch_model.safetensors.index.json").is_file()
    unet = VideoUNet.load(tmp_path)
    assert unet.config == UNetConfig(**SHAPE, image_conditioning=kind is I2VGenXLUNet)
    assert state_is_equal(unet.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_exact_and_trainable(tmp_path, dtype):
    unet = video_unet(temporal_dropout=0.25).to(dtype)
    unet.save(tmp_path)
    again = VideoUNet.load(tmp_path)
    assert again.config == unet.config
    assert state_is_equal(again.state_dict(), unet.state_dict())
    assert all(p.requires_grad and p.dtype == dtype for p in again.parameters())


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("config.json")):
        VideoUNet.load(tmp_path)
    video_unet().save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "layers_per_block": 1}))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        VideoUNet.load(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        VideoUNet.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights"):
        read_tensors(tmp_path / "absent.pth")


# ---------------------------------------------------------------- from an image model


def test_papers_network_takes_every_tensor_of_sd21():
    """SD 2.1's UNet on the meta device: 686 tensors, all but conv_in.weight alike."""
    with torch.device("meta"):
        image = UNet2DConditionModel(
            cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True
        )
        report = init_from_image_unet(VideoUNet(UNetConfig()), image.state_dict())
    assert len(report.copied) == 685
    assert report.adapted == ("conv_in.weight",)
    assert len(report.fresh) == 825 and not report.unused


@pytest.mark.parametrize(("height", "width"), [(8, 16), (9, 7)])
def test_one_frame_of_a_text_only_network_equals_the_image_model(height, width):
    image = image_unet()
    unet = VideoUNet(UNetConfig(**SHAPE, image_conditioning=False)).eval()
    init_from_image_unet(unet, image.state_dict())
    inputs = base_inputs(2, 1, height, width)
    text, timestep = inputs["encoder_hidden_states"], inputs["timestep"]
    with torch.no_grad():
        video = unet(inputs["sample"], timestep, encoder_hidden_states=text)
        expected = image(inputs["sample"][:, :, 0], timestep, text).sample
    assert relative_error(video[:, :, 0], expected) <= 1e-5


def test_base_network_equals_the_image_model_under_the_same_context():
    """The base also attends to image tokens: the image model is given them as its text. Then every
    frame, not only a single one, is what the image model makes of it."""
    image = image_unet()
    unet = VideoUNet(UNetConfig(**SHAPE)).eval()
    init_from_image_unet(unet, image.state_dict())
    inputs = base_inputs(2, 3, 8, 8)
    with torch.no_grad():
        context = unet.context_tokens(
            inputs["encoder_hidden_states"], inputs["image_latents"], inputs["image_embeddings"]
        )
        assert context.shape == (2, 7 + 64 + 4, CONTEXT)
        video = unet(**inputs)
        for frame in range(3):
            alone = image(inputs["sample"][:, :, frame], inputs["timestep"], context).sample
            assert relative_error(video[:, :, frame], alone) <= 1e-5


def test_an_image_model_of_another_width_is_refused():
    image = UNet2DConditionModel(block_out_channels=(32, 64, 64, 128), norm_num_groups=16,
                                 cross_attention_dim=CONTEXT)  # fmt: skip
    with pytest.raises(ValueError, match="differ in width"):
        init_from_image_unet(video_unet(), image.state_dict())
    with pytest.raises(ValueError, match="which this network lacks"):
        init_from_image_unet(video_unet(), {**image_unet().state_dict(), "extra": torch.ones(1)})


# ---------------------------------------------------------------- from other video models


def test_refinement_shares_every_tensor_with_its_base():
    base, refine = video_unet(seed=1), video_unet(image_conditioning=False, seed=2)
    report = init_refinement_from_base(refine, base.state_dict())
    assert report.adapted == ("conv_in.weight",) and not report.fresh
    base_state = base.state_dict()
    for name, value in refine.state_dict().items():
        expected = base_state[name]
        assert torch.equal(value, expected[:, :4] if name == "conv_in.weight" else expected), name


def test_refinement_refuses_another_base():
    refine = video_unet(image_conditioning=False)
    with pytest.raises(ValueError, match="differ in width"):
        init_refinement_from_base(refine, video_unet(cross_attention_dim=16).state_dict())
    with pytest.raises(ValueError, match="lacks"):
        init_refinement_from_base(refine, image_unet().state_dict())


def test_released_diffusers_weights_load_whole(tmp_path):
    source, unet = video_unet(seed=1), video_unet(seed=2)
    source.save(tmp_path)
    report = init_from_released(unet, tmp_path)
    assert state_is_equal(unet.state_dict(), source.state_dict())
    assert len(report.copied) == len(source.state_dict())
    values, tensors = read_unet_directory(tmp_path)
    assert values["_class_name"] == "I2VGenXLUNet"
    del tensors["fps_embedding.0.bias"]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=re.escape("fps_embedding.0.bias")):
        init_from_released(unet, tmp_path / "part.safetensors")


def vgen_layout(unet: VideoUNet) -> dict[str, torch.Tensor]:
    """The same weights as VGen's class would hold them: its modules walked in its order of
    numbering, which is the order in which its forward pass runs."""
    state = unet.state_dict()
    out: dict[str, torch.Tensor] = {}

    def move(old: str, new: str, **parts: str) -> None:
        for name, value in state.items():
            if name.startswith(old + "."):
                rest = name.removeprefix(old + ".")
                for ours, vgen in parts.items():
                    rest = re.sub(rf"^{ours}\.", vgen + ".", rest)
                over_time = "temp_attentions" in old or old == "transformer_in"
                if over_time and re.fullmatch(r"proj_(in|out)\.weight", rest):
                    value = value[:, :, None]  # a convolution of width one there
                out[f"{new}.{rest}"] = value

    def layer(level: str, index: int, number: str) -> None:
        move(f"{level}.resnets.{index}", f"{number}.0", norm1="in_layers.0", conv1="in_layers.2",
             time_emb_proj="emb_layers.1", norm2="out_layers.0", conv2="out_layers.3",
             conv_shortcut="skip_connection")  # fmt: skip
        move(f"{level}.temp_convs.{index}", f"{number}.0.temopral_conv")
        move(f"{level}.attentions.{index}", f"{number}.1")
        move(f"{level}.temp_attentions.{index}", f"{number}.2")

    move("time_embedding", "time_embed", linear_1="0", linear_2="2")
    for name in ("context_embedding", "fps_embedding"):
        move(name, name)
    move("image_latents_proj_in", "local_image_concat")
    move("image_latents_context_embedding", "local_image_embedding")
    encoder, vgen_encoder = "image_latents_temporal_encoder", "local_temporal_encoder.layers.0"
    move(f"{encoder}.norm1", f"{vgen_encoder}.0.norm")
    move(f"{encoder}.attn1.to_out", f"{vgen_encoder}.0.fn.to_out")
    if unet.config.image_conditioning:
        fused = [state[f"{encoder}.attn1.to_{part}.weight"] for part in "qkv"]
        out[f"{vgen_encoder}.0.fn.to_qkv.weight"] = torch.cat(fused)
    move(f"{encoder}.ff.net.0.proj", f"{vgen_encoder}.1.net.0.0")
    move(f"{encoder}.ff.net.2", f"{vgen_encoder}.1.net.2")
    move("conv_in", "input_blocks.0.0")
    move("transformer_in", "input_blocks.0.1")
    number = 1
    for level, block in enumerate(unet.down_blocks):
        for index in range(len(block.resnets)):
            layer(f"down_blocks.{level}", index, f"input_blocks.{number}")
            number += 1
        if block.downsample:
            move(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.op")
            number += 1
    layer("mid_block", 0, "middle_block.first")
    layer("mid_block", 1, "middle_block.last")
    order = {"first.0": "0", "first.1": "1", "first.2": "2", "last.0": "3"}
    for name in [name for name in out if name.startswith("middle_block.")]:
        _, which, place, rest = name.split(".", 3)
        out[f"middle_block.{order[f'{which}.{place}']}.{rest}"] = out.pop(name)
    number = 0
    for level, block in enumerate(unet.up_blocks):
        for index in range(len(block.resnets)):
            layer(f"up_blocks.{level}", index, f"output_blocks.{number}")
            number += 1
        if block.upsample:
            place = 3 if block.num_attentions else 1
            last = f"output_blocks.{number - 1}.{place}.conv"
            move(f"up_blocks.{level}.upsamplers.0.conv", last)
    move("conv_norm_out", "out.0")
    move("conv_out", "out.2")
    return out


@pytest.mark.parametrize("image_conditioning", [True, False], ids=["i2vgen", "sr600"])
def test_vgens_pth_loads_whole(tmp_path, image_conditioning):
    source = video_unet(image_conditioning, seed=1)
    tensors = vgen_layout(source)
    alike = tensors.keys() & source.state_dict().keys()
    assert all(name.startswith(("context_embedding.", "fps_embedding.")) for name in alike)
    torch.save({"state_dict": tensors, "step": 854500}, tmp_path / "released.pth")
    unet = video_unet(image_conditioning, seed=2)
    init_from_released(unet, tmp_path / "released.pth")
    assert state_is_equal(unet.state_dict(), source.state_dict())


def test_pickles_that_run_code_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"state_dict": Trap()}))
    with pytest.raises(pickle.UnpicklingError):
        read_tensors(tmp_path / "trap.pth")
    assert not (tmp_path / "touched").exists()


def test_an_index_cannot_point_outside_its_folder(tmp_path):
    save_file({"secret": torch.ones(1)}, tmp_path / "secret.safetensors")
    inside = tmp_path / "inside"
    inside.mkdir()
    index = {"weight_map": {"secret": "../secret.safetensors"}}
    (inside / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError):
        read_tensors(inside)
