"""What an editor lays over a picture: black bars, caption bars, subtitles, watermarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.world.truth import Box, Overlay

CAPTIONS = (
    "BREAKING NEWS the harbour bridge reopens today after months of repair",
    "Thanks for watching please like share and subscribe for more",
    "Chapter two in which nothing goes according to the plan",
    "Call now and save thirty percent offer ends on Sunday night",
    "I have told you twice already we are not going home tonight",
    "LIVE from the studio weather and traffic on the hour every hour",
)
WATERMARKS = ("SAMPLE TV", "stockfilm", "PREVIEW", "channel 5")
_BAR_RGB = np.array((18, 22, 30), dtype=np.float32)


@dataclass(frozen=True)
class Layer:
    """An overlay ready to paste: colours and opacity of the pixels inside `overlay.box`."""

    overlay: Overlay
    rgb_HWC: np.ndarray
    opacity_HW1: np.ndarray

    def paste(self, frame_HWC: np.ndarray) -> None:
        """Blends the layer into the frame, in place."""
        box = self.overlay.box
        window = frame_HWC[box.y : box.y + box.h, box.x : box.x + box.w]
        mixed = window * (1.0 - self.opacity_HW1) + self.rgb_HWC * self.opacity_HW1
        window[:] = np.round(mixed).astype(np.uint8)


def caption_layer(words: str, style: str, width_px: int, height_px: int) -> Layer:
    """Large lines at the bottom, on a dark bar (`caption_bar`) or outlined (`subtitle`)."""
    lines = _broken_into(2 if width_px > height_px else 4, words)
    font = _font_to_fit(lines, 0.86 * width_px, 0.1 * height_px)
    mask, outline = _written(lines, font, width_px)
    bar_px = mask.shape[0] + 2 * (height_px // 40)
    top = height_px - bar_px - (0 if style == "caption_bar" else height_px // 30)
    down = (bar_px - mask.shape[0]) // 2
    letters = np.zeros((bar_px, width_px, 1), dtype=np.float32)
    letters[down : down + mask.shape[0], :, 0] = mask
    edge = np.zeros_like(letters)
    edge[down : down + mask.shape[0], :, 0] = outline
    rgb = 245.0 * letters + (1.0 - letters) * _BAR_RGB
    opacity = np.maximum(letters, edge) if style == "subtitle" else np.full_like(letters, 0.88)
    overlay = _overlay(style, words, Box(0, top, width_px, bar_px), letters, width_px * height_px)
    return Layer(overlay, rgb, np.maximum(opacity, letters))


def watermark_layer(words: str, corner: int, width_px: int, height_px: int) -> Layer:
    """Small, half transparent words in one of four corners (0 top left, 3 bottom right)."""
    font = ImageFont.load_default(max(10.0, 0.075 * min(height_px, 9 * width_px / 16)))
    length_px = int(font.getlength(words)) + 4
    mask, outline = _written([words], font, length_px)
    margin_px = height_px // 25
    x = margin_px if corner % 2 == 0 else width_px - margin_px - length_px
    y = margin_px if corner < 2 else height_px - margin_px - mask.shape[0]
    letters, edge = mask[..., None], outline[..., None]
    box = Box(x, y, length_px, mask.shape[0])
    overlay = _overlay("watermark", words, box, letters, width_px * height_px)
    return Layer(overlay, 255.0 * letters * np.ones(3), 0.75 * np.maximum(letters, edge))


def framed(picture_HWC: np.ndarray, picture: Box, width_px: int, height_px: int) -> np.ndarray:
    """The picture in a whole frame, black bars around it."""
    if (picture.w, picture.h) == (width_px, height_px):
        return picture_HWC
    frame = np.zeros((height_px, width_px, 3), dtype=np.uint8)
    frame[picture.y : picture.y + picture.h, picture.x : picture.x + picture.w] = picture_HWC
    return frame


def _overlay(
    kind: str, words: str, box: Box, letters_HW1: np.ndarray, frame_area_px: int
) -> Overlay:
    rows = np.flatnonzero(letters_HW1.max(axis=(1, 2)) > 0.5)
    columns = np.flatnonzero(letters_HW1.max(axis=(0, 2)) > 0.5)
    text_box = Box(
        box.x + int(columns[0]),
        box.y + int(rows[0]),
        int(columns[-1] - columns[0]) + 1,
        int(rows[-1] - rows[0]) + 1,
    )
    return Overlay(kind, words, box, text_box, round(text_box.area_px / frame_area_px, 4))


def _broken_into(num_lines: int, words: str) -> list[str]:
    parts = words.split()
    per_line = -(-len(parts) // num_lines)
    return [" ".join(parts[at : at + per_line]) for at in range(0, len(parts), per_line)]


def _font_to_fit(
    lines: list[str], width_px: float, size_px: float
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    font = ImageFont.load_default(size_px)
    longest_px = max(font.getlength(line) for line in lines)
    if longest_px <= width_px:
        return font
    return ImageFont.load_default(size_px * width_px / longest_px)


def _written(
    lines: list[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centred lines as two float32 (H, W) masks in [0, 1]: the letters, and with their outline."""
    line_px = int(getattr(font, "size", 10) * 1.25) + 2
    masks = []
    for stroke_px in (0, max(1, line_px // 14)):
        image = Image.new("L", (width_px, line_px * len(lines)))
        draw = ImageDraw.Draw(image)
        for number, line in enumerate(lines):
            middle = (width_px / 2, line_px * (number + 0.5))
            draw.text(middle, line, 255, font, anchor="mm", stroke_width=stroke_px)
        masks.append(np.asarray(image, dtype=np.float32) / 255)
    return masks[0], masks[1]
