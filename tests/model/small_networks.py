"""Small networks with random weights, and how far two tensors are apart."""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from model.unet import UNetConfig, VideoUNet

# Every kind of block, several widths, and heads narrower than any of them.
SHAPE = {
    "block_out_channels": (32, 64, 64, 64),
    "norm_num_groups": 16,
    "cross_attention_dim": 32,
    "attention_head_dim": 16,
}
CONTEXT = 32
# The least that still has a level with attention and one without.
NARROW = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
}


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter a value, also those that start at zero, so that no branch is silent.

    The seed alone decides: biases, too, which PyTorch draws from a generator that nobody seeded,
    would now and then make a network in which rounding grows a hundredfold.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif name.rpartition(".")[2] == "bias":
                parameter.copy_(0.1 * noise)
            else:
                parameter.add_(0.1 * noise)


def video_unet(image_conditioning: bool = True, seed: int = 0, **changes) -> VideoUNet:
    """In eval mode, with random weights."""
    config = UNetConfig(**{**SHAPE, **changes}, image_conditioning=image_conditioning)
    unet = VideoUNet(config).eval()
    randomise(unet, seed)
    return unet


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


def base_inputs(
    batch: int, frames: int, height: int, width: int, seed: int = 1
) -> dict[str, Tensor]:
    """Arguments of a base network: different timesteps and frame rates within the batch."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "sample": noise(batch, 4, frames, height, width),
        "timestep": torch.tensor([999, 3, 250][:batch]),
        "fps": torch.tensor([8, 16, 1][:batch]),
        "image_latents": noise(batch, 4, frames, height, width),
        "image_embeddings": noise(batch, 1, CONTEXT),
        "encoder_hidden_states": noise(batch, 7, CONTEXT),
    }


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def state_is_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
