"""A picture of a label map: the photo tinted by label, thin lines between regions, the legend below it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clippy_cli.data.images import resize_image
from clippy_cli.reporting.palette import RGB, palette

MAX_SIDE = 2048  # pixels; larger photos are shown reduced, their masks are not
MIN_SIDE = 640  # smaller ones are enlarged, so that the legend can be read
MIN_LEGEND = 320
_PAPER: RGB = (255, 255, 255)
_INK: RGB = (32, 32, 32)
_LINE: RGB = (255, 255, 255)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class LegendItem:
    """A colour and what it stands for."""

    rgb: RGB
    text: str


def draw_overlay(image: NDArray[np.uint8], codes: NDArray[np.int16], legend: Sequence[LegendItem]) -> Image.Image:
    """(H,W,3) photo and (H,W) codes -> the tinted photo, with its legend in a strip of its own below.

    The longer side is brought within 640 to 2048 pixels. Code 0 is left untinted.
    """
    tinted = tint(image, codes)
    height, width = tinted.shape[:2]
    strip = np.asarray(draw_legend(legend, max(width, MIN_LEGEND)))
    picture = np.full((height + len(strip), strip.shape[1], 3), _PAPER[0], np.uint8)
    picture[:height, :width] = tinted
    picture[height:] = strip
    return Image.fromarray(picture)


def tint(image: NDArray[np.uint8], codes: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The photo half covered by its labels' colours, regions parted by thin light lines; sized as in the overlay.

    A tinted value is the mean of photo and color, on a line a quarter of that and three of white, rounded half to even.
    """
    height, width = shown_size(*codes.shape)
    photo = resize_image(image, height, width)
    shown = _nearest(codes, height, width)
    within = np.clip(shown, 0, len(palette()) - 1).astype(np.uint8)
    colours: NDArray[np.uint8] = cv2.applyColorMap(within, palette()[:, None])  # (H,W,3)
    tinted: NDArray[np.uint8] = cv2.addWeighted(photo, 0.5, colours, 0.5, 0)
    tinted[within == 0] = photo[within == 0]
    lines = _borders(shown, max(1, round(max(height, width) / 900))).ravel().nonzero()[0]
    pixels = photo.reshape(-1, 3)[lines].astype(np.float32)
    weight = np.where(shown.ravel()[lines] > 0, np.float32(0.5), np.float32(0))[:, None]
    blended = pixels * (1 - weight) + colours.reshape(-1, 3)[lines] * weight
    tinted.reshape(-1, 3)[lines] = np.rint(0.25 * blended + 0.75 * np.array(_LINE, np.float32)).astype(np.uint8)
    return tinted


def shown_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in pixels at which a photo is shown: the longer side between 640 and 2048, aspect kept."""
    longest = max(height, width)
    scale = min(max(longest, MIN_SIDE), MAX_SIDE) / longest
    return max(1, round(height * scale)), max(1, round(width * scale))


def draw_legend(items: Sequence[LegendItem], width: int) -> Image.Image:
    """Swatches and texts on a strip ``width`` pixels wide, flowing into as many lines as they need.

    A text wider than the strip is broken into lines. No items give a strip of no height.
    """
    size = min(40, max(14, round(width / 42)))
    font = _font(size, threading.get_ident())
    gap, line = round(size * 0.6), round(size * 1.5)
    indent = size + gap // 2  # the swatch and the space behind it
    placed: list[tuple[int, int, LegendItem, list[str]]] = []
    x = y = gap
    row_lines = 1
    for item in items:
        lines = _wrap(item.text, font, max(size, width - 2 * gap - indent))
        extent = indent + round(max(font.getlength(text) for text in lines))
        if x > gap and x + extent > width - gap:
            x, y, row_lines = gap, y + line * row_lines, 1
        placed.append((x, y, item, lines))
        x += extent + 2 * gap
        row_lines = max(row_lines, len(lines))
    strip = Image.new("RGB", (width, y + line * row_lines + gap // 2 if placed else 0), _PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, item, lines in placed:
        draw.rectangle((x, y, x + size, y + size), fill=item.rgb, outline=_INK)
        for number, text in enumerate(lines):
            draw.text((x + indent, y + size / 2 + number * line), text, fill=_INK, font=font, anchor="lm")
    return strip


@lru_cache(maxsize=64)
def _font(size: int, thread: int) -> Font:
    """Pillow's own font, which takes longer to read than a legend to draw; each ``thread`` has its own."""
    return ImageFont.load_default(size)


def _nearest(codes: NDArray[np.int16], height: int, width: int) -> NDArray[np.int16]:
    rows = np.arange(height) * codes.shape[0] // height
    columns = np.arange(width) * codes.shape[1] // width
    picked: NDArray[np.int16] = codes.take(rows, axis=0).take(columns, axis=1)
    return picked


def _borders(codes: NDArray[np.int16], thickness: int) -> NDArray[np.bool_]:
    """(H,W) bool: pixels within ``thickness`` to the left of or above another code."""
    lines = np.zeros(codes.shape, dtype=bool)
    for step in range(1, thickness + 1):
        lines[:, :-step] |= codes[:, :-step] != codes[:, step:]
        lines[:-step] |= codes[:-step] != codes[step:]
    return lines


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Break a text into lines at most ``width`` pixels wide, between words where that is possible."""
    whole = " ".join(text.split())
    if font.getlength(whole) <= width:
        return [whole]
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines
