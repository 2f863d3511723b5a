"""Near duplicates among very many clips: seconds, memory, and what the index misses.

    python tests/benchmarks/duplicates_scale.py --counts 30000,100000,300000

Made-up fingerprints with the spectrum of pictures and a part that all share (skies are bright);
a tenth of the clips copy another one, more or less closely. Prints processor seconds (laying out,
looking up), and the share of copies found by how alike they are. Found and dropped is the same
here: a copy that the index gives is measured and always passes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from pipelines.curation.duplicates import DuplicatesConfig, find_copies
from pipelines.curation.phash import clip_hash, unpacked
from pipelines.records import Clip, clip_id_of

COPIES = 0.1
COSINES = (0.88, 0.92, 0.95, 0.97, 0.99)
BANDS = ((0.9, 0.92), (0.92, 0.95), (0.95, 0.98), (0.98, 1.01))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", default="10000,30000,100000")
    for count in (int(text) for text in parser.parse_args().counts.split(",")):
        measure(count)


def measure(count: int) -> None:
    clips, copied, cosines = made_up(count, np.random.default_rng(0))
    started_s = time.process_time()
    found = dict(find_copies(clips, DuplicatesConfig()))
    seconds = time.process_time() - started_s
    first = count - len(copied)
    right = np.array(
        [found.get(clips[first + i].clip_id) == clips[of].clip_id for i, of in enumerate(copied)]
    )
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shares = [
        f"{low:.2f}-{high:.2f}: {right[(cosines >= low) & (cosines < high)].mean():.4f}"
        for low, high in BANDS
    ]
    print(
        f"{count:9,d} clips  {seconds:7.1f} s  {1e6 * seconds / count:6.1f} us a clip  "
        f"peak {memory_mb:,.0f} MB  wrong {len(found) - int(right.sum())}  found at cosine "
        + "  ".join(shares),
        flush=True,
    )


def made_up(count: int, rng: np.random.Generator) -> tuple[list[Clip], np.ndarray, np.ndarray]:
    """Clips best first, for each of the last which one it copies, and how alike the two are."""
    size = len(unpacked(clip_hash([_GREY_HW], [_GREY_HWC])).standing)
    fading = (1 / np.sqrt(1 + np.arange(size) % 32)).astype(np.float32)
    shared = rng.standard_normal(size, dtype=np.float32) * fading
    values = rng.standard_normal((count, size), dtype=np.float32) * fading + 0.5 * shared
    values /= np.sqrt((values**2).mean(axis=1, keepdims=True))
    copies = int(count * COPIES)
    copied = rng.integers(0, count - copies, copies)
    alike = np.array(COSINES, np.float32)[rng.integers(len(COSINES), size=copies)][:, None]
    noise = rng.standard_normal((copies, size), dtype=np.float32) * fading
    noise /= np.sqrt((noise**2).mean(axis=1, keepdims=True))
    values[count - copies :] = values[copied] * alike + noise * np.sqrt(1 - alike**2)
    digits = np.clip(np.round(values * (7 / 3)), -7, 7).astype(np.int8)
    one, other = digits[copied].astype(float), digits[count - copies :].astype(float)
    cosines = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
    texts = np.frombuffer(b"0123456789abcdef", np.uint8)[digits + 8]
    return [_clip(i, texts[i].tobytes().decode()) for i in range(count)], copied, cosines


def _clip(number: int, digits: str) -> Clip:
    """Grey, standing still: what stands decides alone. Sharper is better, so lower numbers."""
    source_id = f"{number:032x}"
    return Clip(
        clip_id=clip_id_of(source_id, 0, 50), source_id=source_id, kind="video", shot_index=0,
        start_frame=0, end_frame=50, start_s=0.0, end_s=2.0, fps=25.0, width_px=1280,
        height_px=720, crop_x_px=0, crop_y_px=0, crop_w_px=1280, crop_h_px=720,
        phash="8080" + digits + "8" * _MOVING, sharpness=-float(number),
    )  # fmt: skip


_GREY_HW = np.zeros((32, 32), np.uint8)
_GREY_HWC = np.zeros((32, 32, 3), np.uint8)
_MOVING = len(unpacked(clip_hash([_GREY_HW])).moving)

if __name__ == "__main__":
    main()
