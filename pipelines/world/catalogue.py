"""The worlds there are: which films, stills and copies each preset holds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from pipelines.config import RequestError
from pipelines.world.draft import FilmSpec, draw_film, draw_still
from pipelines.world.encodings import ENCODINGS
from pipelines.world.plan import FilmPlan, reencoded

Choice = TypeVar("Choice")

NTSC_24, NTSC_30 = Fraction(24000, 1001), Fraction(30000, 1001)
SD, MID, LOW = (640, 360), (480, 270), (320, 180)
HD, FULL_HD = (1280, 720), (1920, 1080)
ODD_NAME = "-dash, space & 🎬"
PRESETS = ("demo", "small", "large")
DEFAULT_LARGE_FILMS = 64


@dataclass(frozen=True)
class Reencode:
    """Film number `film` once more, smaller or worse."""

    film: int
    encoding: str
    size_px: tuple[int, int]


@dataclass(frozen=True)
class World:
    """Every file to be filmed, and which films are to be copied byte for byte."""

    plans: tuple[FilmPlan, ...]
    copies: tuple[FilmPlan, ...]


DEMO_FILMS = (
    FilmSpec(SD, Fraction(25), "h264", 5, ("cut",)),
    FilmSpec(SD, Fraction(24), "h264", 5, ("cut", "dissolve"), ("black",)),
    FilmSpec(MID, Fraction(30), "hevc", 5, ("fade", "cut"), ("static",)),
    FilmSpec(LOW, Fraction(25), "vp9", 5, ("wipe", "cut"), ("short",)),
    FilmSpec(SD, Fraction(25), "h264", 5, ("dissolve", "fade", "wipe"), borders="letterbox"),
    FilmSpec(SD, NTSC_30, "h264_mkv", 5, ("cut",), ("flashes",), borders="pillarbox"),
    FilmSpec(MID, Fraction(25), "mpeg4", 4, ("cut",), ("captioned", "flat")),
    FilmSpec(SD, Fraction(30), "h264", 5, ("cut", "dissolve"), variable_frame_rate=True),
    FilmSpec(LOW, Fraction(24), "h264", 5, ("cut",), ("captioned",), rotation_deg=90),
    FilmSpec(LOW, NTSC_24, "hevc_mov", 4, ("fade", "cut"), ("shaky",), rotation_deg=270),
    FilmSpec(MID, Fraction(15), "h264", 5, ("cut",), rotation_deg=180, watermark=True),
    FilmSpec(SD, Fraction(12), "mjpeg", 3, ("cut", "wipe"), ("static",), watermark=True),
    FilmSpec(HD, Fraction(24), "h264_fast", 5, ("cut", "dissolve")),
    FilmSpec(HD, Fraction(25), "h264_fast", 3, ("cut", "wipe"), ("blurred",)),
    FilmSpec(FULL_HD, Fraction(12), "h264_fast", 1),
    FilmSpec(LOW, Fraction(60), "h264_10bit", 3, ("cut",), ("short",)),
    FilmSpec(LOW, Fraction(50), "av1", 3, ("dissolve", "cut")),
    FilmSpec(MID, repeats=((2, 0), (6, 0)), good_shots=2, name=ODD_NAME),
)
DEMO_REENCODES = (Reencode(0, "vp9", LOW), Reencode(3, "h264_low", LOW))

SMALL_FILMS = (
    FilmSpec(defects=("black", "short"), good_shots=2),
    FilmSpec(LOW, Fraction(24), "h264_mkv", 4, ("dissolve", "fade", "wipe")),
    FilmSpec(
        LOW, Fraction(30), "h264", 2, ("cut",), ("static",), "letterbox", variable_frame_rate=True
    ),
    FilmSpec(LOW, Fraction(25), "h264", 1, ("cut",), ("flashes",), "pillarbox", rotation_deg=90),
    FilmSpec(LOW, Fraction(15), "vp9", 2, ("cut",), ("captioned",), watermark=True, name=ODD_NAME),
)
SMALL_REENCODES = (Reencode(0, "mpeg4", (256, 144)),)

_STILL_SIZES = (SD, LOW, (400, 300), HD, (360, 640), MID)


def draw_world(preset: str, seed: int, num_films: int = 0) -> World:
    """The plans of a preset. `num_films` counts the films of "large" (0: 64).

    Raises RequestError for an unknown preset, or a number of films where the preset fixes it.
    """
    if preset not in PRESETS:
        raise RequestError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")
    if num_films and preset != "large":
        raise RequestError(f"--films goes with --preset large; {preset} has its own number")
    if preset == "demo":
        return _assembled(DEMO_FILMS, DEMO_REENCODES, (2,), 12, seed)
    if preset == "small":
        return _assembled(SMALL_FILMS, SMALL_REENCODES, (3,), 2, seed)
    count = num_films or DEFAULT_LARGE_FILMS
    rng = np.random.default_rng([seed, 30])
    specs = tuple(_random_spec(rng) for _ in range(count))
    doubled = rng.choice(count, size=max(1, count // 16), replace=False).tolist()
    reencodes = tuple(Reencode(film, "h264_low", LOW) for film in doubled)
    return _assembled(specs, reencodes, tuple(doubled[:1]), max(2, count // 4), seed)


def _assembled(
    specs: tuple[FilmSpec, ...],
    reencodes: tuple[Reencode, ...],
    copied: tuple[int, ...],
    num_stills: int,
    seed: int,
) -> World:
    films: list[FilmPlan] = []
    for index, spec in enumerate(specs):
        name = f"films/{spec.name or f'film-{index:04d}'}"
        films.append(draw_film(spec, name, (seed, 10, index), films))
    for index, again in enumerate(reencodes, start=len(specs)):
        encoding = ENCODINGS[again.encoding]
        name = f"films/film-{index:04d}"
        films.append(reencoded(films[again.film], name, encoding, again.size_px))
    stills = [
        draw_still(
            _STILL_SIZES[index % len(_STILL_SIZES)],
            "png" if index % 3 == 2 else "jpeg",
            f"stills/still-{index:04d}",
            (seed, 20, index),
            borders="letterbox" if index == 6 else "none",
        )
        for index in range(num_stills)
    ]
    return World((*films, *stills), tuple(films[index] for index in copied))


def _random_spec(rng: np.random.Generator) -> FilmSpec:
    large_picture = rng.random() < 0.5
    rotation_deg = _pick(rng, 90, 180, 270) if rng.random() < 0.1 else 0
    variable = rotation_deg == 0 and rng.random() < 0.1
    encoding = _pick(rng, "h264", "h264", "h264_mkv", "hevc", "vp9", "mpeg4", "h264_10bit", "mjpeg")
    kinds = ("static", "black", "flat", "flashes", "short", "captioned", "blurred", "shaky")
    defects = rng.choice(kinds, size=int(rng.integers(0, 3)), replace=False).tolist()
    return FilmSpec(
        size_px=_pick(rng, MID, MID, SD, SD, SD, HD) if large_picture else LOW,
        fps=_pick(rng, *map(Fraction, (12, 15, 24, 25, 30, 50)), NTSC_24, NTSC_30),
        encoding="h264" if rotation_deg or variable else encoding,
        good_shots=int(rng.integers(3, 7)),
        transitions=("cut", _pick(rng, "cut", "dissolve", "fade", "wipe")),
        defects=tuple(defects),
        borders=_pick(rng, "letterbox", "pillarbox") if rng.random() < 0.2 else "none",
        watermark=bool(rng.random() < 0.15) and "black" not in defects,
        variable_frame_rate=variable,
        rotation_deg=rotation_deg,
    )


def _pick(rng: np.random.Generator, *choices: Choice) -> Choice:
    return choices[int(rng.integers(len(choices)))]
