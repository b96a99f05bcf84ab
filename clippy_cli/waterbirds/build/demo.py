"""A generated stand-in for birds and backgrounds, to see the whole of Waterbirds at work where no data is at hand.

Birds are simple drawings, grounds those of the generated scenes. What a model makes of them says nothing about photos.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.scene_drawing import draw_ground, finish
from clippy_cli.files import write_whole
from clippy_cli.regular_files import is_file, read_bytes

DEMO_SET = "generated-demonstration"
DEMO_NOTE = "Birds and backgrounds are drawn; what a model makes of them says nothing about photos."
SIDE = 128
_LAND, _WATER = ("grass", "wood"), ("water", "sky")


def write_demo(folder: Path, *, birds: int = 160, grounds: int = 160, seed: int = 0) -> tuple[Path, Path]:
    """Write ``birds/`` (photos, masks, classes) and ``backgrounds/{land,water}/`` below ``folder``; return both.

    ``birds`` are half land and half water birds, ``grounds`` half land and half water; the same for the same seed.
    ClippyError where the disk is full or the folder cannot be written to.
    """
    objects, backgrounds = folder / "birds", folder / "backgrounds"
    lines = ["key,class"]
    for index in range(birds):
        kind = ("land bird", "water bird")[index % 2]
        image, mask = draw_bird(index % 2 == 1, random.Random(f"{seed} bird {index}"))
        key = f"{kind.replace(' ', '-')}-{index:03}"
        _save(objects / "images" / f"{key}.png", image)
        _save(objects / "masks" / f"{key}.png", mask)
        lines.append(f"{key},{kind}")
    _write(objects / "classes.csv", "\n".join([*lines, ""]).encode())
    for index in range(grounds):
        place, names = (("land", _LAND), ("water", _WATER))[index % 2]
        rng = random.Random(f"{seed} ground {index}")
        ground = draw_ground(names[index // 2 % 2], SIDE, rng, np.random.default_rng([seed, index]))
        _save(backgrounds / place / f"{index:03}.png", finish(ground))
    return objects, backgrounds


def draw_bird(water: bool, rng: random.Random) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A drawing (SIDE,SIDE,3) uint8 on grey, and its mask (SIDE,SIDE) uint8 of 0 and 255.

    A water bird is pale, with a long neck and a flat bill; a land bird is dark, with a short beak, and stands on legs.
    """
    scale = SIDE * rng.uniform(0.85, 1.05)
    facing = rng.choice((-1, 1))
    centre = np.array([SIDE * rng.uniform(0.46, 0.54), SIDE * rng.uniform(0.54, 0.6)])
    tones = ((228, 226, 220), (168, 176, 190)) if water else ((122, 78, 46), (150, 52, 40), (70, 74, 60))
    body = tuple(int(value + rng.uniform(-14, 14)) for value in rng.choice(tones))
    wing = tuple(int(value * 0.78) for value in body)
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)

    def at(x: float, y: float) -> tuple[int, int]:
        point = centre + np.array([facing * x, y]) * scale
        return round(float(point[0])), round(float(point[1]))

    def both(draw: Callable[[NDArray[np.uint8], tuple[int, ...]], object], tone: tuple[int, ...]) -> None:
        draw(image, tone)
        draw(mask, (255,))

    def size(*lengths: float) -> tuple[int, ...]:
        return tuple(max(1, round(length * scale)) for length in lengths)

    head = at(0.3, -0.34) if water else at(0.24, -0.18)
    beak = (232, 150, 40) if water else (60, 52, 44)
    if water:
        neck = size(0.075)[0]
        both(lambda a, c: cv2.line(a, at(0.2, -0.02), head, c, neck, cv2.LINE_8), body)
    else:
        both(lambda a, c: cv2.line(a, at(-0.03, 0.1), at(-0.03, 0.33), c, size(0.02)[0], cv2.LINE_8), beak)
        both(lambda a, c: cv2.line(a, at(0.06, 0.1), at(0.06, 0.33), c, size(0.02)[0], cv2.LINE_8), beak)
    tail = np.array([at(-0.2, -0.04), at(-0.42, -0.14), at(-0.36, 0.06)])
    both(lambda a, c: cv2.fillPoly(a, [tail], c), wing)
    axes = size(0.29, 0.16) if water else size(0.25, 0.17)
    both(lambda a, c: cv2.ellipse(a, at(0, 0), axes, 0, 0, 360, c, -1), body)
    both(lambda a, c: cv2.ellipse(a, at(-0.05, -0.02), size(0.16, 0.085), 0, 0, 360, c, -1), wing)
    both(lambda a, c: cv2.circle(a, head, size(0.085 if water else 0.1)[0], c, -1), body)
    reach, thick = (0.2, 0.035) if water else (0.11, 0.04)
    x, y = (0.36, -0.34) if water else (0.32, -0.18)
    bill = np.array([at(x, y - thick), at(x + reach, y + 0.01), at(x, y + thick)])
    both(lambda a, c: cv2.fillPoly(a, [bill], c), beak)
    cv2.circle(image, head, size(0.018)[0], (20, 20, 20), -1)
    return image, mask


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    _write(path, content.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Write a file; one that an earlier demonstration left keeps its time, so that what was built of it stays good."""
    if not (is_file(path) and read_bytes(path) == content):
        write_whole(path, lambda stream: stream.write(content))
