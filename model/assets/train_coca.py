"""Train the embedded CoCa: one small open_clip model that captions and scores."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from model.assets.muon import Muon
from model.assets.picture_stream import PictureStream, facts_of
from model.assets.teaching import Probes, start_local
from model.assets.vocabulary import VOCABULARY_FILE, write_vocabulary
from model.encoders import COCA_CONFIG, COCA_WEIGHTS
from pipelines.world.scenes import BACKGROUNDS, COLOURS, MOTION_PHRASES, SHAPES

_BATCH = 64
_FRESH = 24
_MASK_LAYER = 1
_VISION_ALONE_SHARE = 0.5
_CAPTION_TOKENS = 14
_EMA_DECAY = 0.998
_FORMS = (
    "a {colour} {shape} over a {background} background",
    "a {colour} {shape} over a {background} background",
    "a {colour} {shape} {motion} over a {background} background",
    "a {colour} {shape} {motion} over a {background} background",
    "a {colour} {shape}",
    "a {colour} {shape} {motion}",
    "{colour} {shape}",
    "a photo of a {colour} {shape}",
    "a video of a {colour} {shape} {motion}",
    "{colour} {shape} on a {background} background",
)


@dataclass(frozen=True)
class Facts:
    """What a text says, as indices; -1 where it is silent. The last motion index is `none`."""

    shape: int
    colour: int
    background: int
    motion: int

    def text(self, form: str) -> str:
        """The facts in words; "an" before a vowel."""
        words = form.format(
            shape=SHAPES[self.shape],
            colour=COLOURS[self.colour],
            background=BACKGROUNDS[self.background],
            motion=list(MOTION_PHRASES.values())[self.motion],
        )
        return words.replace("a orange", "an orange")

    def told_by(self, form: str) -> tuple[int, int, int, int]:
        """(shape, colour, background, motion) as far as this form tells them."""
        background = self.background if "{background}" in form else -1
        motion = self.motion if "{motion}" in form else len(MOTION_PHRASES)
        return self.shape, self.colour, background, motion


def train_coca(
    directory: Path,
    minutes: float,
    seed: int = 0,
    resume: bool = False,
    publish_every_s: float = 120,
) -> None:
    """Train for `minutes` of CPU time; publishes into `directory` on the way and at the end.

    First the vision tower alone, which has most to learn, then everything together. With
    `resume`, go on from the weights in `directory` with everything.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 55])
    model = _new_model()
    if resume:
        model.load_state_dict(load_file(directory / COCA_WEIGHTS.name))
    tokenizer = open_clip.get_tokenizer(COCA_CONFIG.stem, bpe_path=str(VOCABULARY_FILE))
    visual = model.visual
    probes = Probes(visual.output_dim, visual.patch_size[0])
    stream = PictureStream(rng, visual.preprocess_cfg, visual.image_size[0])
    alone_share = 0.0 if resume else _VISION_ALONE_SHARE
    optimisers = _optimisers(model, probes)
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    began_s = published_s = time.process_time()
    step = 0
    while (share := (time.process_time() - began_s) / (60 * minutes)) < 1:
        together = share >= alone_share
        losses = training_losses(model, probes, tokenizer, stream, rng, together)
        for weight in [*model.parameters(), *probes.parameters()]:
            weight.grad = None
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        pace = min(1.0, (step + 1) / 100, (1.0 - share) / 0.5)
        for optimiser, rate in optimisers:
            optimiser.param_groups[0]["lr"] = rate * pace
            optimiser.step()
        step += 1
        decay = min(_EMA_DECAY, step / (step + 20))
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
            for name, value in model.state_dict().items():
                ema[name].lerp_(value, 1 - decay)
        if step % 25 == 0:
            parts = " ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"coca step {step} share {share:.2f} {parts}", flush=True)
        enough = resume or share > alone_share + 0.15
        if enough and time.process_time() - published_s > publish_every_s:
            publish_coca(ema, directory)
            published_s = time.process_time()
    publish_coca(ema, directory)


def _new_model() -> Any:
    write_vocabulary()
    open_clip.add_model_config(COCA_CONFIG)
    model = open_clip.create_model(COCA_CONFIG.stem).train()
    # open_clip leaves the decoder's output layer uninitialised.
    projection = model.text_decoder.text_projection
    nn.init.normal_(projection, std=projection.shape[0] ** -0.5)
    start_local(model.visual)
    return model


def _optimisers(model: Any, probes: nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices inside the blocks, AdamW for the rest; with peak learning rates."""
    inner: list[Tensor] = []
    rest: list[Tensor] = list(probes.parameters())
    for name, weight in model.named_parameters():
        block = any(part in name for part in ("resblocks", "cross_attn", "attn_pool.attn"))
        (inner if weight.ndim == 2 and block else rest).append(weight)
    adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.03)
    return [(Muon(inner, lr=0.0), 2e-2), (adam, 1e-3)]


def publish_coca(weights: dict[str, Tensor], directory: Path) -> None:
    """Put the fp16 weights in place at once."""
    part = directory / f"{COCA_WEIGHTS.name}.part"
    half = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(half, part, metadata={"format": "pt"})
    os.replace(part, directory / COCA_WEIGHTS.name)
    print("coca published", flush=True)


def training_losses(
    model: Any,
    probes: Probes,
    tokenizer: Any,
    stream: PictureStream,
    rng: np.random.Generator,
    together: bool,
) -> dict[str, Tensor]:
    """Losses of one batch: of the vision tower, and if `together` of the texts as well."""
    pictures = stream.batch(_BATCH, _FRESH)
    images = torch.stack([picture.image_CHW for picture in pictures])
    masks = torch.stack([picture.mask_HW for picture in pictures])
    facts = [Facts(*facts_of(picture.scene)) for picture in pictures]
    facts_BF = torch.tensor([[f.shape, f.colour, f.background] for f in facts])
    middle: list[Tensor] = []
    blocks = model.visual.transformer.resblocks
    hooks = [
        blocks[index].register_forward_hook(lambda _, inputs, output: middle.append(output))
        for index in (_MASK_LAYER, len(blocks) - 1)
    ]
    with torch.autocast("cpu", torch.bfloat16):
        image_BD, image_tokens_BLD = model._encode_image(images, normalize=False)
    for hook in hooks:
        hook.remove()
    image_BD = image_BD.float()
    losses = {
        "mask": 3 * probes.mask_loss(middle[0], masks),
        "part": probes.part_loss(middle[1], masks, facts_BF[:, 0]),
        "image": (0.3 if together else 1.0) * probes.image_loss(image_BD, facts_BF),
    }
    if not together:
        return losses

    texts, told = _texts(facts, rng)
    tokens, told_TF = tokenizer(texts), torch.tensor(told)
    caption_tokens = tokenizer([picture.scene.still_caption for picture in pictures])
    caption_tokens = caption_tokens[:, :_CAPTION_TOKENS]
    with torch.autocast("cpu", torch.bfloat16):
        text_TD, text_tokens_TLD = model._encode_text(tokens, normalize=False)
        _, caption_BLD = model._encode_text(caption_tokens)
        logits_BLV = model.text_decoder(image_tokens_BLD, caption_BLD[:, :-1])
    losses["caption"] = F.cross_entropy(
        logits_BLV.float().transpose(1, 2), caption_tokens[:, 1:], ignore_index=0
    )
    losses["contrast"] = contrastive_loss(
        F.normalize(image_BD, dim=-1),
        F.normalize(text_TD.float(), dim=-1),
        facts_BF,
        told_TF,
        model.logit_scale.exp(),
    )
    ends_T = (tokens == tokenizer.eot_token_id).int().argmax(1)
    ends_TD = text_tokens_TLD[torch.arange(len(tokens)), ends_T].float()
    losses["text"] = 0.1 * probes.text_loss(model.text.ln_final(ends_TD), told_TF)
    return losses


def contrastive_loss(
    image_BD: Tensor, text_TD: Tensor, facts_BF: Tensor, told_TF: Tensor, scale: Tensor
) -> Tensor:
    """CLIP's loss where a text that is also true of another image is no negative of it.

    Text i belongs to image i; texts past B are wrong variants, negatives for all they miss.
    """
    logits_BT = scale * image_BD @ text_TD.T
    agree_BTF = facts_BF[:, None, :] == told_TF[None, :, :3]
    true_BT = (agree_BTF | (told_TF[None, :, :3] < 0)).all(-1)
    own = torch.arange(len(image_BD))
    true_BT[own, own] = False
    logits_BT = logits_BT.masked_fill(true_BT, -1e4)
    to_text = F.cross_entropy(logits_BT, own)
    to_image = F.cross_entropy(logits_BT[:, : len(own)].T, own)
    return (to_text + to_image) / 2


def _texts(
    facts: list[Facts], rng: np.random.Generator
) -> tuple[list[str], list[tuple[int, int, int, int]]]:
    """One true text for each image, then one that is wrong in shape or in colour."""
    forms = [_FORMS[int(rng.integers(len(_FORMS)))] for _ in facts]
    wrong = [_near_miss(f, rng) for f in facts]
    pairs = list(zip([*facts, *wrong], forms * 2, strict=True))
    return [f.text(form) for f, form in pairs], [f.told_by(form) for f, form in pairs]


def _near_miss(facts: Facts, rng: np.random.Generator) -> Facts:
    shape, colour = facts.shape, facts.colour
    if rng.random() < 0.55:
        shape = int(shape + rng.integers(1, len(SHAPES))) % len(SHAPES)
    else:
        colour = int(colour + rng.integers(1, len(COLOURS))) % len(COLOURS)
    return Facts(shape, colour, facts.background, facts.motion)
