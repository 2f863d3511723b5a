"""Our video UNet against eager diffusers `I2VGenXLUNet`: same weights, same inputs, one run.

    python tests/benchmarks/unet_speed.py --preset demo --frames 16

Prints processor seconds (not wall time: other work on the machine then matters little), medians of
alternating runs, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--preset", choices=("demo", "small"), default="demo")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    import torch
    from diffusers import I2VGenXLUNet

    from model.presets import PRESETS
    from model.unet import VideoUNet

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = PRESETS[arguments.preset]().base_unet
    ours = VideoUNet(config)
    known = {k: v for k, v in config.to_json().items() if not k.startswith("_")}
    for name in ("image_conditioning", "temporal_dropout"):
        known.pop(name)
    theirs = I2VGenXLUNet(**known)
    theirs.load_state_dict(ours.state_dict())
    frames = arguments.frames
    inputs = {
        "sample": torch.randn(1, 4, frames, 16, 28),
        "timestep": torch.tensor([500]),
        "fps": torch.tensor([8]),
        "image_latents": torch.randn(1, 4, frames, 16, 28),
        "image_embeddings": torch.randn(1, 1, config.cross_attention_dim),
        "encoder_hidden_states": torch.randn(1, 77, config.cross_attention_dim),
    }

    def forward(network: torch.nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                network(**inputs)

        return run

    def training(network: torch.nn.Module) -> Callable[[], None]:
        def run() -> None:
            out = network(**inputs)
            (out if isinstance(out, torch.Tensor) else out.sample).square().mean().backward()

        return run

    print(f"{arguments.preset}, {frames} frames of 28x16, {arguments.threads} thread(s)")
    for work, make in (("forward", forward), ("forward + backward", training)):
        a, b = _alternate(make(ours), make(theirs), arguments.rounds)
        print(f"{work:20s} ours {a:.3f} s   diffusers {b:.3f} s   ratio {b / a:.2f}x")


def _alternate(
    ours: Callable[[], None], theirs: Callable[[], None], rounds: int
) -> tuple[float, float]:
    """Median processor seconds of each, measured in turns after one warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for run, seconds in zip((ours, theirs), times, strict=True):
            started_s = time.process_time()
            run()
            seconds.append(time.process_time() - started_s)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


if __name__ == "__main__":
    main()
