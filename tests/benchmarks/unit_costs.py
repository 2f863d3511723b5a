"""What one second, one clip, one source costs: the measured ground of the load model.

    python tests/benchmarks/unit_costs.py --json tests/benchmarks/unit_costs.json

Processor seconds of the production code on one thread, medians of alternating rounds, on a
1280x720 montage of two real clips (H.264); bytes as they lie on the disk. Operations of the models
are counted on tensors without memory, because their weights cannot be had everywhere and a CPU says
nothing about a GPU. Requests are those that an S3-compatible server on loopback saw.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

Costs = dict[str, float]
#: Answers of a kind are coloured: there may be a letter of that before the method.
REQUEST = re.compile(r"(GET|HEAD|PUT|POST|DELETE) (/\S*) HTTP/1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the montage, s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {
            "machine": {"processor": platform.processor() or platform.machine()},
            "cpu": cpu_costs(folder, arguments.seconds, arguments.rounds),
            "operations": counted_operations(),
            "requests": counted_requests(folder / "requests"),
        }
    text = json.dumps(figures, indent=2, sort_keys=True)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


# --- processor time and bytes ----------------------------------------------------------------


def cpu_costs(folder: Path, seconds: float, rounds: int) -> Costs:
    """Processor seconds per second of footage, per kept second, per GiB."""
    import cv2

    from tests.benchmarks.films import montage

    cv2.setNumThreads(1)
    film = montage(folder / "montage-720p.mp4", seconds)
    clips = _watched(film)
    kept = [clip for clip in clips if clip.verdict == "kept"]
    kept_s = sum(clip.duration_s for clip in kept)
    cropped = [_cropped(clip) for clip in kept]
    gib = film.stat().st_size / 2**30
    jobs: dict[str, tuple[Callable[[], object], float]] = {
        "hash_s_per_gib": (lambda: _hashed(film), gib),
        "watch_s_per_footage_s": (lambda: _watched(film), seconds),
        "cut_copied_s_per_kept_s": (lambda: _cut(film, kept, folder), kept_s),
        "cut_encoded_s_per_kept_s": (lambda: _cut(film, cropped, folder), kept_s),
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (job, amount) in jobs.items():
            started_s = time.process_time()
            job()
            found[name].append((time.process_time() - started_s) / amount)
    sizes = _cut(film, kept, folder)
    return {
        **{name: statistics.median(values) for name, values in found.items()},
        "footage_bytes_per_s": film.stat().st_size / seconds,
        "kept_bytes_per_s": sum(sizes) / kept_s,
        "clips_per_footage_s": len(clips) / seconds,
        **_stored_bytes(clips),
    }


def _hashed(film: Path) -> str:
    from pipelines.storage import sha256_of_file

    return sha256_of_file(film)


def _watched(film: Path) -> list[Any]:
    from tests.benchmarks.curation_speed import watched

    return watched(film)


def _cropped(clip: Any) -> Any:
    """The same clip with a border to remove, which no copy of coded pictures can do."""
    from dataclasses import replace

    return replace(clip, crop_y_px=clip.crop_y_px + 16, crop_h_px=clip.crop_h_px - 32)


def _cut(film: Path, clips: list[Any], folder: Path) -> list[int]:
    """Bytes of each cut."""
    from pipelines.curation.cuts import order_of
    from pipelines.media import cut_clips

    return [r.size_bytes for r in cut_clips(film, [order_of(clip, folder) for clip in clips])]


def _stored_bytes(clips: list[Any]) -> Costs:
    """Of a clip's row with an embedding of 1,024 numbers, in a table of many."""
    import numpy as np
    import pyarrow.parquet as pq

    from pipelines.records import Clip, to_table

    rng = np.random.default_rng(0)
    many = [_numbered(clips[i % len(clips)], i, rng) for i in range(2000)]
    sink = tempfile.NamedTemporaryFile(suffix=".parquet")  # noqa: SIM115 - closed with the process
    pq.write_table(to_table(Clip, many), sink.name, compression="zstd")
    return {"row_bytes_per_clip": os.path.getsize(sink.name) / len(many)}


def _numbered(clip: Any, number: int, rng: Any) -> Any:
    from dataclasses import replace

    from pipelines.records import clip_id_of, source_id_of

    source_id = source_id_of(f"{number:064x}")
    return replace(
        clip,
        source_id=source_id,
        clip_id=clip_id_of(source_id, clip.start_frame, clip.end_frame),
        caption=f"a caption of about a dozen words that differs in number {number}",
        embedding=rng.standard_normal(1024).astype("float16").tolist(),
    )


# --- operations of the models ----------------------------------------------------------------


def counted_operations() -> Costs:
    """TFLOP (two per multiply-add) of what the paper's preset asks of a GPU."""
    from model.presets import paper
    from tests.benchmarks.gpu_networks import Size, config_of
    from tests.benchmarks.gpu_work import Row, step_flops

    preset = paper()
    found = {}
    for stage in ("base", "refine"):
        size = Size(1, preset.num_frames, *preset.latent_size(stage))
        flops = step_flops(Row(f"train-{stage}", "ours"), preset, size)
        assert config_of(preset, stage)
        found[f"train_{stage}_tflop_per_video"] = flops / 1e12
    return {
        **found,
        "score_tflop_per_frame": _image_tower_flops("ViT-H-14", 224) / 1e12,
        "caption_tflop_per_frame": _image_tower_flops("ViT-L-14", 224) / 1e12,
        "vae_base_tflop_per_frame": _vae_flops(256, 448) / 1e12,
        "vae_refine_tflop_per_frame": _vae_flops(720, 1280) / 1e12,
    }


def _image_tower_flops(name: str, side_px: int) -> int:
    import open_clip
    import torch

    with torch.device("meta"):
        tower = open_clip.CLIP(**open_clip.get_model_config(name)).visual.eval()
    return _flops(lambda: tower(torch.zeros(1, 3, side_px, side_px, device="meta")))


def _vae_flops(height_px: int, width_px: int) -> int:
    import diffusers
    import torch

    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        ).eval()
    return _flops(lambda: vae.encoder(torch.zeros(1, 3, height_px, width_px, device="meta")))


def _flops(call: Callable[[], object]) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


# --- requests --------------------------------------------------------------------------------


def counted_requests(folder: Path) -> dict[str, Any]:
    """Requests of a curation into an object store by kind: per source, and for the rest.

    Two runs of different size, through a real server; the slope is what a source costs.
    """
    from tests.servers.object_store import object_store

    folder.mkdir()
    few, many = 4, 12
    with object_store(folder) as store:
        os.environ.update(store.environment)
        seen = {n: _requests_of_a_run(folder, store, n) for n in (few, many)}
    kinds = sorted(set(seen[few]) | set(seen[many]))
    per_source = {k: (seen[many].get(k, 0) - seen[few].get(k, 0)) / (many - few) for k in kinds}
    return {
        "per_source": per_source,
        "fixed": {k: seen[few].get(k, 0) - few * per_source[k] for k in kinds},
    }


def _requests_of_a_run(folder: Path, store: Any, films: int) -> dict[str, int]:
    from tests.benchmarks.films import montage
    from tests.conftest import run_job

    footage = folder / f"footage-{films}"
    footage.mkdir()
    for number in range(films):
        montage(footage / f"{number}.mp4", 4 + number / 10)
    log = folder / "objects.log"
    before = len(list(_requests(log)))
    dataset = f"{store.uri}/run-{films}/set"
    ended = run_job(
        "jobs/curate.py", "--footage", footage, "--dataset", dataset,
        "--tracking.enabled", "false", "--duplicates.enabled", "false",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    counts: dict[str, int] = {}
    for kind in list(_requests(log))[before:]:
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _requests(log: Path) -> Iterator[str]:
    """The method of each request, a listing apart from other reads."""
    for method, path in REQUEST.findall(log.read_text(errors="replace")):
        yield "LIST" if method == "GET" and "list-type=" in path else method


if __name__ == "__main__":
    main()
