"""Captions from a CoCa model: greedy or small-beam decoding over its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.clip import preprocess_for


@dataclass(frozen=True, eq=False)
class Captioner:
    """A CoCa model that writes captions; made by `load_captioner_model`.

    open_clip's own `generate` needs classes that transformers 5 removed, so decoding is ours.
    """

    model: Any
    tokenizer: Any
    device: torch.device

    def preprocess(self, frames_BHWC: np.ndarray | Tensor) -> Tensor:
        """uint8 RGB frames of any size to the model's input, float32 (B, 3, S, S)."""
        return preprocess_for(self.model, frames_BHWC).to(self.device)

    def generate_captions(
        self,
        frames_BHWC: np.ndarray | Tensor,
        max_tokens: int = 20,
        beams: int = 1,
        batch_size: int = 32,
    ) -> list[str]:
        """One caption for each uint8 RGB frame, of at most `max_tokens` tokens.

        One beam is greedy decoding; more keep the likeliest caption by mean log-probability.
        """
        captions: list[str] = []
        for start in range(0, len(frames_BHWC), batch_size):
            images = self.preprocess(frames_BHWC[start : start + batch_size])
            tokens_BL = self.decode_tokens(images, max_tokens, beams)
            captions.extend(self._words(tokens) for tokens in tokens_BL.tolist())
        return captions

    @torch.no_grad()
    def decode_tokens(self, images_BCHW: Tensor, max_tokens: int, beams: int = 1) -> Tensor:
        """Token ids (B, L), from the start token up to the end token, then padding.

        The image is encoded once; the text is run again for every token, since the caption is
        short. Raises ValueError for fewer than one token or beam.
        """
        if max_tokens < 1 or beams < 1:
            raise ValueError(f"max_tokens and beams are at least 1, got {max_tokens} and {beams}")
        batch = len(images_BCHW)
        latent, image_tokens = self.model._encode_image(images_BCHW)
        latent, image_tokens = (x.repeat_interleave(beams, 0) for x in (latent, image_tokens))
        end, pad = self.tokenizer.eot_token_id, self.model.pad_id
        texts = torch.full((batch * beams, 1), self.tokenizer.sot_token_id, device=self.device)
        # Every beam starts alike: all but the first are impossible, or they would stay copies.
        totals = torch.full((batch, beams), float("-inf"), device=self.device)
        totals[:, 0] = 0.0
        ended = torch.zeros(batch * beams, dtype=torch.bool, device=self.device)
        lengths = torch.zeros(batch, beams, device=self.device)
        room = min(max_tokens, self.model.context_length - 1)
        for _ in range(room):
            output = self.model(
                None, texts, image_latent=latent, image_embs=image_tokens, output_labels=False
            )
            steps = output["logits"][:, -1].float().log_softmax(-1)
            steps[ended] = float("-inf")
            steps[ended, pad] = 0.0
            scores = totals[..., None] + steps.view(batch, beams, -1)
            totals, flat = scores.flatten(1).topk(beams, dim=1)
            parents, words = flat // steps.shape[-1], flat % steps.shape[-1]
            rows = (parents + beams * torch.arange(batch, device=self.device)[:, None]).flatten()
            lengths = lengths.gather(1, parents) + (~ended[rows]).view(batch, beams)
            texts = torch.cat([texts[rows], words.view(-1, 1)], dim=1)
            ended = ended[rows] | (words.flatten() == end)
            if bool(ended.all()):
                break
        best = (totals / lengths.clamp(min=1)).argmax(1)
        return texts.view(batch, beams, -1)[torch.arange(batch, device=self.device), best]

    def _words(self, tokens: list[int]) -> str:
        """Text between the start and the end token."""
        tokens = tokens[1:]
        if self.tokenizer.eot_token_id in tokens:
            tokens = tokens[: tokens.index(self.tokenizer.eot_token_id)]
        return " ".join(self.tokenizer.decode(tokens).replace(" .", "").split())
