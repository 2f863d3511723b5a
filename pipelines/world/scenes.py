"""Single-object scenes with a known caption: the ground truth behind every generated film.

A scene is a pure value; its frames depend on it alone. Lengths are in units of the frame
(widths across, heights down) and speeds in those units per second, so a scene looks the same
at every size and frame rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "spin", "bounce")
BACKGROUNDS = ("textured", "gradient", "noise")
CAMERAS = ("still", "pan_left", "pan_right", "zoom_in", "zoom_out")

#: The object's whole path fits the frame for this long; later, travel glides to a halt.
SCENE_SECONDS = 4.0

MOTION_PHRASES = {
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "down": "moving down",
    "grow": "growing",
    "shrink": "shrinking",
    "spin": "spinning",
    "bounce": "bouncing",
}
COLOUR_RGB = {
    "red": (215, 30, 35),
    "orange": (248, 135, 20),
    "yellow": (242, 224, 45),
    "green": (40, 165, 65),
    "blue": (35, 80, 220),
    "purple": (130, 45, 185),
    "pink": (250, 135, 190),
    "white": (247, 247, 247),
}

_HALT_S = 0.4
_TRAVEL_PER_S = {
    "left": (-0.115, 0.0),
    "right": (0.115, 0.0),
    "up": (0.0, -0.12),
    "down": (0.0, 0.12),
}
# The content moves against the camera, always slower than a travelling object: what a caption
# calls "moving left" also moves left on the screen under a panning camera.
_PAN_PER_S = {"pan_left": 0.04, "pan_right": -0.04}
_ZOOM_PER_S = {"zoom_in": 0.045, "zoom_out": -0.045}
_GROWTH_PER_S = {"grow": 0.17, "shrink": -0.17}
_TURNS_PER_S = 0.3
_BOUNCE_HEIGHT, _BOUNCE_PERIOD_S = 0.36, 1.1
_PAN_MARGIN = 0.11


@dataclass(frozen=True)
class Scene:
    """One object over one background; `seed` settles position, size, tints and texture."""

    shape: str
    colour: str
    motion: str
    background: str
    camera: str
    seed: int

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.shape, SHAPES),
            (self.colour, COLOURS),
            (self.motion, MOTIONS),
            (self.background, BACKGROUNDS),
            (self.camera, CAMERAS),
        ):
            if value not in allowed:
                raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        if self.seed < 0:
            raise ValueError(f"a scene's seed is not negative, got {self.seed}")

    @property
    def caption(self) -> str:
        """All a viewer of the moving picture could say."""
        phrase = MOTION_PHRASES[self.motion]
        return f"{self.short_caption} {phrase} over a {self.background} background"

    @property
    def still_caption(self) -> str:
        """What a single frame shows."""
        return f"{self.short_caption} over a {self.background} background"

    @property
    def short_caption(self) -> str:
        """Article, colour and shape."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Placement:
    """Where the object is: centre in frame widths/heights, size in heights, angle in radians."""

    x: float
    y: float
    size: float
    angle: float


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw every attribute uniformly and independently."""

    def pick(names: tuple[str, ...]) -> str:
        return names[int(rng.integers(len(names)))]

    return Scene(
        shape=pick(SHAPES),
        colour=pick(COLOURS),
        motion=pick(MOTIONS),
        background=pick(BACKGROUNDS),
        camera=pick(CAMERAS),
        seed=int(rng.integers(2**31)),
    )


def object_placement(scene: Scene, time_s: float) -> Placement:
    """The object's place on the screen, the camera's movement included."""
    rng = np.random.default_rng([scene.seed, 1])
    across, down = rng.uniform(-1.0, 1.0, 2)
    size = rng.uniform(0.33, 0.36 if scene.motion in _GROWTH_PER_S else 0.42)
    tilt = rng.uniform(-0.2, 0.2)
    since_middle_s = _travel_time(time_s) - SCENE_SECONDS / 2
    velocity_x, velocity_y = _TRAVEL_PER_S.get(scene.motion, (0.0, 0.0))
    # A travelling object may only be offset across its path, or it would leave the frame.
    x = (0.04 if velocity_x else 0.16) * across + velocity_x * since_middle_s
    y = (0.03 if velocity_y else 0.12) * down + velocity_y * since_middle_s
    angle = tilt
    if scene.motion == "spin":
        angle += 2 * math.pi * _TURNS_PER_S * time_s
    if scene.motion == "bounce":
        y = 0.2 - _BOUNCE_HEIGHT * abs(math.sin(math.pi * time_s / _BOUNCE_PERIOD_S))
    size *= math.exp(_GROWTH_PER_S.get(scene.motion, 0.0) * since_middle_s)
    shift, zoom = _camera(scene.camera, time_s)
    return Placement(0.5 + zoom * (x + shift), 0.5 + zoom * y, zoom * size, angle)


def render_frames(
    scene: Scene, num_frames: int, width_px: int, height_px: int, fps: float
) -> Iterator[np.ndarray]:
    """Yield `num_frames` RGB frames, uint8 (height, width, 3), taken at i / fps seconds.

    Raises ValueError for a size under 16 px or a rate that is not positive.
    """
    if width_px < 16 or height_px < 16 or num_frames < 0 or not fps > 0:
        raise ValueError(f"cannot render {num_frames} frames of {width_px}x{height_px} at {fps}")
    canvas = _background(scene, width_px, height_px)
    sprites: dict[int, np.ndarray] = {}
    for index in range(num_frames):
        time_s = index / fps
        frame = _view(canvas, scene.camera, time_s, width_px, height_px)
        placement = object_placement(scene, time_s)
        side_px = _sprite_side(placement.size * height_px)
        if side_px not in sprites:
            sprites[side_px] = _sprite(scene, side_px)
        _paste(frame, sprites[side_px], placement)
        yield frame


def _travel_time(time_s: float) -> float:
    """Real time up to SCENE_SECONDS, then a glide to a halt so that nothing leaves the frame."""
    if time_s <= SCENE_SECONDS:
        return time_s
    return SCENE_SECONDS + _HALT_S * (1.0 - math.exp((SCENE_SECONDS - time_s) / _HALT_S))


def _camera(camera: str, time_s: float) -> tuple[float, float]:
    """How far the content is shifted (frame widths) and magnified at this time."""
    travelled_s = _travel_time(time_s)
    shift = _PAN_PER_S.get(camera, 0.0) * (travelled_s - SCENE_SECONDS / 2)
    rate = _ZOOM_PER_S.get(camera, 0.0)
    farthest = min(rate, 0.0) * (SCENE_SECONDS + _HALT_S)  # never shows beyond the canvas
    return shift, math.exp(rate * travelled_s - farthest)


def _view(
    canvas: np.ndarray, camera: str, time_s: float, width_px: int, height_px: int
) -> np.ndarray:
    if camera == "still":
        return canvas.copy()
    shift, zoom = _camera(camera, time_s)
    margin_px = (canvas.shape[1] - width_px) / 2
    middle_x, middle_y = (width_px - 1) / 2, (height_px - 1) / 2
    screen_to_canvas = np.array(
        [
            [1 / zoom, 0.0, middle_x + margin_px - shift * width_px - middle_x / zoom],
            [0.0, 1 / zoom, middle_y - middle_y / zoom],
        ]
    )
    return cv2.warpAffine(
        canvas,
        screen_to_canvas,
        (width_px, height_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _background(scene: Scene, width_px: int, height_px: int) -> np.ndarray:
    """The canvas behind the object; wider than the frame when the camera pans."""
    rng = np.random.default_rng([scene.seed, 2])
    margin_px = math.ceil(_PAN_MARGIN * width_px) if scene.camera in _PAN_PER_S else 0
    canvas_px = width_px + 2 * margin_px
    x = (np.arange(canvas_px, dtype=np.float32)[None, :] - canvas_px / 2) / height_px
    y = (np.arange(height_px, dtype=np.float32)[:, None] - height_px / 2) / height_px
    base = _dull_colour(rng)
    if scene.background == "textured":
        tone = _texture(x, y, rng) * rng.uniform(14.0, 24.0)
        canvas = base + tone[..., None]
    elif scene.background == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        ramp = math.cos(angle) * x / (canvas_px / height_px) + math.sin(angle) * y
        other = base + rng.choice([-1.0, 1.0]) * rng.uniform(24.0, 36.0) + rng.uniform(-8, 8, 3)
        canvas = base + (other - base) * (2.0 * ramp[..., None])
    else:
        clouds = _clouds(rng, canvas_px, height_px)
        grain = rng.standard_normal((height_px, canvas_px), dtype=np.float32)
        canvas = base + clouds + 3.0 * grain[..., None]
    return np.clip(canvas, 12, 190).astype(np.uint8)


def _dull_colour(rng: np.random.Generator) -> np.ndarray:
    """A greyish tone, far from all eight object colours."""
    return (rng.uniform(72.0, 128.0) + rng.uniform(-13.0, 13.0, 3)).astype(np.float32)


def _texture(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stripes, checks or weave in [-1, 1]; soft edges, so that any size renders clean."""
    kind = int(rng.integers(3))
    angle = rng.uniform(0, math.pi)
    wave = 2 * math.pi / rng.uniform(0.09, 0.17)
    along = np.sin(wave * (math.cos(angle) * x + math.sin(angle) * y))
    across = np.sin(wave * (math.cos(angle) * y - math.sin(angle) * x))
    if kind == 0:
        return np.tanh(2.5 * along)
    if kind == 1:
        return np.tanh(4.0 * along * across)
    return 0.5 * (np.tanh(2.5 * along) + np.tanh(2.5 * across))


def _clouds(rng: np.random.Generator, width_px: int, height_px: int) -> np.ndarray:
    """Smoothed noise over four octaves, weaker as it gets finer, with a slight tint."""
    total = np.zeros((height_px, width_px, 3), dtype=np.float32)
    for cells, strength in ((3, 20.0), (6, 13.0), (13, 9.0), (28, 7.0)):
        columns = max(2, round(cells * width_px / height_px))
        grey = rng.standard_normal((cells, columns, 1), dtype=np.float32)
        tint = rng.standard_normal((cells, columns, 3), dtype=np.float32)
        coarse = strength * (grey + 0.15 * tint)
        total += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, -55.0, 55.0)


def _sprite_side(size_px: float) -> int:
    """A power of two between one and two times the size on screen: minified, yet never far."""
    return 2 ** max(3, math.ceil(math.log2(size_px)))


def _sprite(scene: Scene, side_px: int) -> np.ndarray:
    """The object, upright, as premultiplied float32 (side, side, RGBA) on 1.3 x its size.

    One side is shaded darker, or the spin of a circle could not be seen.
    """
    rng = np.random.default_rng([scene.seed, 3])
    tint = np.clip(np.array(COLOUR_RGB[scene.colour]) + rng.uniform(-8, 8, 3), 0, 255)
    cells_px = 4 * side_px
    mask = np.zeros((cells_px, cells_px), dtype=np.uint8)
    for outline, value in _outlines(scene.shape):
        points = (outline / 1.3 + 0.5) * cells_px * 16
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], value, cv2.LINE_AA, shift=4)
    alpha = cv2.resize(mask, (side_px, side_px), interpolation=cv2.INTER_AREA) / np.float32(255)
    ramp = np.linspace(0.78, 1.06, side_px, dtype=np.float32)
    colour = np.clip(ramp[None, :, None] * tint.astype(np.float32), 0, 255)
    sprite = np.empty((side_px, side_px, 4), dtype=np.float32)
    sprite[..., :3] = np.broadcast_to(colour, (side_px, side_px, 3)) * alpha[..., None]
    sprite[..., 3] = alpha
    return sprite


def _outlines(shape: str) -> list[tuple[np.ndarray, int]]:
    """Polygons around the origin, about one unit across, and what each is filled with."""
    if shape == "circle":
        return [(_ring_of_points(96, 0.5), 255)]
    if shape == "ring":
        return [(_ring_of_points(96, 0.52), 255), (_ring_of_points(96, 0.29), 0)]
    if shape == "square":
        return [(_ring_of_points(4, 0.62, turn=math.pi / 4), 255)]
    if shape == "triangle":
        return [(_ring_of_points(3, 0.6), 255)]
    if shape == "star":
        tips, notches = _ring_of_points(5, 0.6), _ring_of_points(5, 0.25, turn=math.pi / 5)
        return [(np.stack([tips, notches], axis=1).reshape(-1, 2), 255)]
    bar = np.array([[-0.52, -0.16], [0.52, -0.16], [0.52, 0.16], [-0.52, 0.16]])
    return [(bar, 255), (bar[:, ::-1], 255)]


def _ring_of_points(count: int, radius: float, turn: float = 0.0) -> np.ndarray:
    angles = turn + 2 * math.pi * np.arange(count) / count
    return radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _paste(frame: np.ndarray, sprite: np.ndarray, placement: Placement) -> None:
    """Blend the sprite into the frame in place, turned, scaled and at sub-pixel position."""
    height_px, width_px = frame.shape[:2]
    scale = 1.3 * placement.size * height_px / sprite.shape[0]
    centre_x = placement.x * width_px - 0.5
    centre_y = placement.y * height_px - 0.5
    reach_px = 0.95 * placement.size * height_px + 2
    left, top = max(0, int(centre_x - reach_px)), max(0, int(centre_y - reach_px))
    right = min(width_px, int(centre_x + reach_px) + 1)
    bottom = min(height_px, int(centre_y + reach_px) + 1)
    if left >= right or top >= bottom:
        return
    cosine, sine = scale * math.cos(placement.angle), scale * math.sin(placement.angle)
    middle = (sprite.shape[0] - 1) / 2
    sprite_to_window = np.array(
        [
            [cosine, -sine, centre_x - left - middle * (cosine - sine)],
            [sine, cosine, centre_y - top - middle * (sine + cosine)],
        ]
    )
    layer = cv2.warpAffine(sprite, sprite_to_window, (right - left, bottom - top))
    window = frame[top:bottom, left:right]
    blended = window * (1.0 - layer[..., 3:]) + layer[..., :3]
    frame[top:bottom, left:right] = np.round(blended).astype(np.uint8)
