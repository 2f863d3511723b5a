"""Writes a whole world: films side by side on all cores, then what is made out of them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from pipelines.config import RequestError
from pipelines.progress import Progress
from pipelines.world import broken as broken_files
from pipelines.world import real_clips as real
from pipelines.world.catalogue import draw_world
from pipelines.world.films import film_truth, write_film
from pipelines.world.plan import FilmPlan
from pipelines.world.truth import (
    MANIFEST_NAME,
    DuplicateOf,
    WorldFile,
    WorldManifest,
    read_manifest,
    truth_path,
    write_manifest,
    write_truth,
)

FOLDERS = ("films", "stills", real.FOLDER, broken_files.FOLDER)


def write_world(
    folder: str | Path,
    *,
    seed: int = 0,
    preset: str = "demo",
    num_films: int = 0,
    real_clips: bool = True,
    broken: bool = True,
) -> WorldManifest:
    """Writes the footage of a preset, with its ground truth, below `folder`.

    Equal requests give equal bytes, on any number of cores. A folder that already holds exactly
    this world is left as it is. Says on standard error how far it is.

    Raises RequestError when the folder holds something else, or real clips are asked for and the
    package that carries them is not installed.
    """
    root = Path(folder).expanduser().absolute()
    wanted = WorldManifest(str(root), seed, preset, num_films, real_clips, broken)
    world = draw_world(preset, seed, num_films)
    if _already_there(root, wanted):
        return read_manifest(root)
    root.mkdir(parents=True, exist_ok=True)
    copied = real.copy_real_clips(root) if real_clips else []
    _film_all(world.plans, root)
    films = [_world_file(plan) for plan in world.plans]
    copies = [_copied(plan, root) for plan in world.copies]
    spoiled = broken_files.write_broken(root, seed) if broken else []
    manifest = replace(wanted, files=(*films, *copies, *copied, *spoiled))
    write_manifest(manifest)
    return manifest


def _already_there(root: Path, wanted: WorldManifest) -> bool:
    """Raises RequestError when the folder is in use for something else."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise RequestError(f"{root}: a file, not a folder; give a new or empty folder")
    if (root / MANIFEST_NAME).is_file():
        found = read_manifest(root)
        if replace(found, files=()) == wanted and all(
            found.path_of(f).exists() for f in found.files
        ):
            return True
        raise RequestError(f"{root}: holds another world; give a new or empty folder")
    strange = sorted(path.name for path in root.iterdir() if path.name not in FOLDERS)
    if strange:
        raise RequestError(f"{root}: holds {strange[0]!r} already; give a new or empty folder")
    return False


def _film_all(plans: tuple[FilmPlan, ...], root: Path) -> None:
    """In processes of their own: filming is mostly Python and holds the interpreter's lock."""
    workers = min(os.cpu_count() or 1, len(plans))
    costliest_first = sorted(plans, key=_megapixels, reverse=True)
    context = multiprocessing.get_context("spawn")
    with (
        Progress(sum(map(_megapixels, plans)), "megapixels", "filming") as progress,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread_each) as pool,
    ):
        filming = {pool.submit(write_film, plan, root): plan for plan in costliest_first}
        for number, film in enumerate(as_completed(filming), start=1):
            film.result()
            progress.advance(_megapixels(filming[film]), films=f"{number}/{len(plans)}")


def _megapixels(plan: FilmPlan) -> int:
    """What filming costs, in pixels to draw."""
    return max(1, plan.width_px * plan.height_px * plan.num_ticks // 1_000_000)


def _one_thread_each() -> None:
    import cv2

    cv2.setNumThreads(1)


def _world_file(plan: FilmPlan) -> WorldFile:
    truth = truth_path(Path(plan.file_name))
    return WorldFile(plan.file_name, "still" if plan.is_still else "film", str(truth))


def _copied(plan: FilmPlan, root: Path) -> WorldFile:
    """The film once more under another name, byte for byte."""
    name = f"{plan.name} (copy).{plan.encoding.extension}"
    shutil.copyfile(root / plan.file_name, root / name)
    duplicate = DuplicateOf(plan.file_name, "exact")
    write_truth(root / name, replace(film_truth(plan), file=name, duplicate_of=duplicate))
    return WorldFile(name, "film", str(truth_path(Path(name))))
