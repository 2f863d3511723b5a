"""Our video UNet against diffusers' `I2VGenXLUNet` on the CPU: same weights, same inputs, one run.

    python tests/benchmarks/unet_speed.py                   # 68 M parameters, 8 frames
    python tests/benchmarks/unet_speed.py --latent 32x56    # the base stage's real size
    python tests/benchmarks/unet_speed.py --compile         # also diffusers under torch.compile

Both are in training mode. Runs take turns; printed are medians of processor seconds (wall seconds
would measure the other work on the machine too) and their ratio. "kept" is what a forward pass
leaves allocated for the backward pass, counted, not timed. For GPUs see `gpu_speed.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from diffusers import I2VGenXLUNet

from model.presets import PRESETS
from model.training_memory import kept_bytes
from model.unet import UNetConfig, VideoUNet

Run = Callable[[], object]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = PRESETS[arguments.preset]().base_unet
    ours = VideoUNet(config)
    theirs = _diffusers(config, ours)
    height, width = (int(side) for side in arguments.latent.split("x"))
    inputs = _inputs(config, arguments.frames, height, width)
    still = _inputs(config, 1, height, width)
    print(
        f"{arguments.preset}: {sum(p.numel() for p in ours.parameters()) / 1e6:.1f} M parameters, "
        f"{arguments.frames} frames of {height}x{width}, {arguments.threads} thread(s), "
        f"float32, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )
    print(f"{'':34s}{'ours':>10s}{'diffusers':>11s}{'ratio':>8s}")
    rounds = arguments.rounds
    _row("forward, s", _timed([_forward(n, inputs) for n in (ours, theirs)], rounds))
    _row("forward + backward, s", _timed([_step(n, inputs) for n in (ours, theirs)], rounds))
    _row("the same, one frame, s", _timed([_step(n, still) for n in (ours, theirs)], rounds))
    for mode in ("none", "selective", "full"):
        ours.set_activation_checkpointing(mode)
        kept = [kept_bytes(_output(n, inputs)) / 2**20 for n in (ours, theirs)]
        _row(f"kept, checkpointing {mode}, MiB", kept)
    ours.set_activation_checkpointing("none")
    if arguments.compile:
        compiled = torch.compile(theirs)
        for label, work in (("forward", _forward), ("forward + backward", _step)):
            times = _timed([work(n, inputs) for n in (ours, compiled)], rounds)
            _row(f"{label}, theirs compiled, s", times)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("demo", "small"), default="small")
    parser.add_argument("--frames", type=int, default=8, help="frames of the video (default 8)")
    parser.add_argument("--latent", default="16x28", help="latent height x width (default 16x28)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of both (default 1)")
    parser.add_argument(
        "--compile", action="store_true", help="also diffusers under torch.compile (minutes)"
    )
    return parser.parse_args()


def _diffusers(config: UNetConfig, ours: VideoUNet) -> I2VGenXLUNet:
    """Their network with our weights."""
    known = {name: value for name, value in config.to_json().items() if not name.startswith("_")}
    for name in ("image_conditioning", "image_integration", "temporal_dropout"):
        known.pop(name, None)
    theirs = I2VGenXLUNet(**known)
    theirs.load_state_dict(ours.state_dict())
    return theirs.train()


def _inputs(config: UNetConfig, frames: int, height: int, width: int) -> dict[str, torch.Tensor]:
    latents = (1, 4, frames, height, width)
    return {
        "sample": torch.randn(latents),
        "timestep": torch.tensor([500]),
        "fps": torch.tensor([8]),
        "image_latents": torch.randn(latents),
        "image_embeddings": torch.randn(1, 1, config.cross_attention_dim),
        "encoder_hidden_states": torch.randn(1, 77, config.cross_attention_dim),
    }


def _output(
    network: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        output = network(**inputs)
        return output if isinstance(output, torch.Tensor) else output.sample

    return run


def _forward(network: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Run:
    return torch.no_grad()(_output(network, inputs))


def _step(network: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Run:
    """With gradients fresh each time, as in training."""

    def run() -> None:
        network.zero_grad(set_to_none=True)
        _output(network, inputs)().square().mean().backward()

    return run


def _timed(runs: list[Run], rounds: int) -> list[float]:
    """Median processor seconds of each, measured in turns after one round of warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, times in zip(runs, seconds, strict=True):
            started_s = time.process_time()
            run()
            times.append(time.process_time() - started_s)
    return [statistics.median(times[1:]) for times in seconds]


def _row(label: str, values: list[float]) -> None:
    ours, theirs = values
    print(f"{label:34s}{ours:10.3f}{theirs:11.3f}{theirs / ours:7.2f}x", flush=True)


if __name__ == "__main__":
    main()
