"""What helps the small towers learn and is not shipped: a local start, and heads that ask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.world.scenes import BACKGROUNDS, COLOURS, MOTION_PHRASES, SHAPES


class Probes(nn.Module):
    """Linear heads that pull facts into the features early.

    The dense heads ask every patch: a middle layer where in it the object is, the last layer which
    shape it belongs to and how far its centre is. Shapes are then learned from a fifth of the
    pictures. The motion head is there because a single frame cannot show motion, so nothing else
    would keep the motion words' features apart.
    """

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        seen = (len(SHAPES), len(COLOURS), len(BACKGROUNDS))
        self.image = nn.ModuleList(nn.Linear(width, count) for count in seen)
        told = (*seen, len(MOTION_PHRASES) + 1)
        self.text = nn.ModuleList(nn.Linear(width, count) for count in told)
        self.mask = nn.Linear(width, patch_px**2)
        self.owner = nn.Linear(width, len(SHAPES))
        self.centre = nn.Linear(width, 2)
        self.patch_px = patch_px

    def image_loss(self, features_BD: Tensor, facts_BF: Tensor) -> Tensor:
        """Cross-entropy of shape, colour and background, summed."""
        return _asked(self.image, features_BD, facts_BF)

    def text_loss(self, features_BD: Tensor, facts_BF: Tensor) -> Tensor:
        """The same with motion; a fact of -1 is not asked for."""
        return _asked(self.text, features_BD, facts_BF)

    def mask_loss(self, tokens_BLD: Tensor, masks_BHW: Tensor) -> Tensor:
        """How badly each patch's token (the class token first) tells the object's pixels."""
        wanted_BLP = self._patches(masks_BHW)
        return F.binary_cross_entropy_with_logits(self.mask(_patch_tokens(tokens_BLD)), wanted_BLP)

    def part_loss(self, tokens_BLD: Tensor, masks_BHW: Tensor, shapes_B: Tensor) -> Tensor:
        """How badly the object's patches tell its shape and the way to its centre (in patches)."""
        touched_BL = self._patches(masks_BHW).mean(-1) > 0.12
        rows = masks_BHW.shape[-1] // self.patch_px
        index = torch.arange(rows * rows)
        places_L2 = torch.stack([index // rows, index % rows], dim=1).float()
        shares_BL = self._patches(masks_BHW).mean(-1) + 1e-6
        shares_BL = shares_BL / shares_BL.sum(1, keepdim=True)
        ways_BL2 = (shares_BL @ places_L2)[:, None] - places_L2
        tokens_ND = _patch_tokens(tokens_BLD)[touched_BL]
        shapes_N = shapes_B[:, None].expand_as(touched_BL)[touched_BL]
        return F.cross_entropy(self.owner(tokens_ND), shapes_N) + F.smooth_l1_loss(
            self.centre(tokens_ND), ways_BL2[touched_BL]
        )

    def _patches(self, masks_BHW: Tensor) -> Tensor:
        rows = masks_BHW.shape[-1] // self.patch_px
        tiles = masks_BHW.view(-1, rows, self.patch_px, rows, self.patch_px)
        return tiles.transpose(2, 3).flatten(3).flatten(1, 2)


def _patch_tokens(tokens_BLD: Tensor) -> Tensor:
    return F.layer_norm(tokens_BLD[:, 1:].float(), tokens_BLD.shape[-1:])


def _asked(heads: nn.ModuleList, features_BD: Tensor, facts_BF: Tensor) -> Tensor:
    terms = [
        F.cross_entropy(head(features_BD), facts_BF[:, column], ignore_index=-1)
        for column, head in enumerate(heads)
    ]
    return torch.stack(terms).sum()


@torch.no_grad()
def start_local(visual: Any) -> None:
    """Let attention begin by looking nearby, as a convolution does.

    "Mimetic initialization" (Trockman and Kolter 2023): sine-cosine positions, query times key
    near the identity, value times output near its negative.
    """
    grid = visual.grid_size[0]
    width = visual.positional_embedding.shape[1]
    visual.positional_embedding[1:] = 0.7 * _sine_positions(grid, width)
    for block in visual.transformer.resblocks:
        packed, heads = block.attn.in_proj_weight, block.attn.num_heads
        head_width = width // heads
        for head in range(heads):
            noise = torch.randn(width, width) / width**0.5
            u, s, v = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(width))
            root = s[:head_width, None].sqrt()
            rows = slice(head * head_width, (head + 1) * head_width)
            packed[:width][rows] = u.T[:head_width] * root
            packed[width : 2 * width][rows] = v[:head_width] * root
        noise = torch.randn(width, width) / width**0.5
        u, s, v = torch.linalg.svd(0.4 * noise - 0.4 * torch.eye(width))
        packed[2 * width :] = s.sqrt()[:, None] * v
        block.attn.out_proj.weight.copy_(u * s.sqrt())


def _sine_positions(grid: int, width: int) -> Tensor:
    """(grid * grid, width): half of the channels tell the row, half the column."""
    quarter = width // 4
    steps = torch.arange(grid).float()[:, None] * 100 ** -(torch.arange(quarter) / quarter)
    line = torch.cat([steps.sin(), steps.cos()], dim=1)
    rows = line[:, None].expand(grid, grid, -1)
    columns = line[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
