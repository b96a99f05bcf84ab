"""Outlines, fillings and grounds of generated scenes, drawn with NumPy and OpenCV.

Lengths are pixels here; a ground or filling scales with the side, so that a scene looks alike at every resolution.
Colours are kept as planes (3,H,W) float32, which NumPy handles several times faster than (H,W,3).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.scene_vocabulary import COLOURS, SceneObject

Floats = NDArray[np.float32]
_SUBPIXEL_BITS = 6


def draw_object(canvas: Floats, mask: NDArray[np.uint8], thing: SceneObject, index: int, rng: random.Random) -> None:
    """Paint one object into canvas (3,H,W) in [0,255] and its class index into mask (H,W), both in place.

    A pixel belongs to the object where the outline covers at least half of it.
    """
    side = mask.shape[0]
    turn = rng.uniform(-1, 1) * _TURNS.get(thing.shape, 0.3)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    centre = np.array([thing.x, thing.y]) * side - 0.5  # OpenCV counts from the centre of the first pixel
    contours = [contour @ rotation * (thing.radius * side) + centre for contour in _outline(thing.shape)]
    left, top = np.maximum(np.floor(contours[0].min(axis=0)).astype(int) - 1, 0).tolist()
    right, bottom = np.minimum(np.ceil(contours[0].max(axis=0)).astype(int) + 2, side).tolist()

    cover = np.zeros((bottom - top, right - left), np.uint8)
    points = [np.rint((contour - (left, top)) * (1 << _SUBPIXEL_BITS)).astype(np.int32) for contour in contours]
    cv2.fillPoly(cover, points, 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    inner = cv2.erode(cover, _NEIGHBOURS, iterations=max(1, round(side / 96)))

    colour = _planes(COLOURS[thing.colour]) + np.float32(rng.uniform(-12, 12))
    border = colour * np.float32(0.55)
    filling = _filling(thing.texture, colour, cover.shape, side, rng)
    paint = border + (filling - border) * _share(inner)
    behind = canvas[:, top:bottom, left:right]
    behind += (paint - behind) * _share(cover)
    mask[top:bottom, left:right][cover >= 128] = index


def draw_ground(name: str, side: int, rng: random.Random, noise: np.random.Generator) -> Floats:
    """A (3,side,side) picture of a background in about [0,255], never the same twice."""
    colour, strength = _GROUNDS[name](side, rng, noise)
    colour += _planes([rng.uniform(-14, 14) for _ in range(3)])
    colour *= strength * np.float32(rng.uniform(0.9, 1.06))
    return colour


def finish(canvas: Floats) -> NDArray[np.uint8]:
    """(3,H,W) in about [0,255] -> (H,W,3) uint8."""
    return np.ascontiguousarray(canvas.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


_NEIGHBOURS = np.ones((3, 3), np.uint8)
_TURNS = {"arrow": np.pi, "moon": 0.8}  # how far a shape may be turned either way, in radians; others 0.3


@cache
def _outline(shape: str) -> tuple[NDArray[np.float64], ...]:
    """Closed contours (M,2) of radius about 1 around their centre of area; a second contour cuts a hole."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    round_ = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if shape == "circle":
        return (0.95 * round_,)
    if shape == "ring":
        return (round_, 0.52 * round_)
    if shape == "square":
        return (0.84 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]),)
    if shape == "triangle":
        contour = np.array([[0, -1.15], [1.0, 0.58], [-1.0, 0.58]])
    elif shape == "star":
        spikes = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
        lengths = np.where(np.arange(10) % 2, 0.46, 1.12)
        contour = lengths[:, None] * np.stack([np.cos(spikes), np.sin(spikes)], axis=1)
    elif shape == "cross":
        a, b = 0.3, 1.0
        corners = [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a], [-b, a], [-b, -a]]
        contour = np.array([*corners, [-a, -a]])
    elif shape == "heart":
        height = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        contour = np.stack([16 * np.sin(angle) ** 3, -height], axis=1) / 16
    elif shape == "moon":
        # A disc, and another disc taken out of it that meets its rim at the two tips.
        tip, bite_tip = 0.75, 1.25
        outer = np.linspace(tip, 2 * np.pi - tip, 30)
        inner = np.linspace(2 * np.pi - bite_tip, bite_tip, 24)
        reach = np.sin(tip) / np.sin(bite_tip)
        centre = np.cos(tip) - reach * np.cos(bite_tip)
        bite = np.stack([centre + reach * np.cos(inner), reach * np.sin(inner)], axis=1)
        contour = 0.9 * np.concatenate([np.stack([np.cos(outer), np.sin(outer)], axis=1), bite])
    elif shape == "arrow":
        head, neck = [[0.1, -0.8], [1.05, 0], [0.1, 0.8]], 0.3
        contour = np.array([[-1.05, -neck], [0.1, -neck], *head, [0.1, neck], [-1.05, neck]])
    else:
        raise ValueError(f"no outline for {shape!r}")
    return (contour - _centre_of_area(contour),)


def _centre_of_area(contour: NDArray[np.float64]) -> NDArray[np.float64]:
    following = np.roll(contour, -1, axis=0)
    cross = contour[:, 0] * following[:, 1] - following[:, 0] * contour[:, 1]
    centre: NDArray[np.float64] = ((contour + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    return centre


def _filling(texture: str, colour: Floats, shape: tuple[int, ...], side: int, rng: random.Random) -> Floats:
    """(3,h,w) or (3,1,1): the colour, patterned with a lighter shade of it (a darker one of light colours)."""
    if texture == "plain":
        return colour
    shade = colour * np.float32(0.5) if colour.min() > 180 else colour + (255 - colour) * np.float32(0.62)
    turn, period = rng.uniform(0, np.pi), side * rng.uniform(0.065, 0.09)
    along, down = np.float32(np.cos(turn) / period), np.float32(np.sin(turn) / period)
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)
    u = x * along + y * down
    if texture == "striped":
        marked = u % 1 < 0.5
    else:
        v = y * along - x * down
        if texture == "checkered":
            marked = (np.floor(u) + np.floor(v)) % 2 < 1
        else:
            marked = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09
    return np.where(marked, shade, colour)


def _planes(values: Sequence[float]) -> Floats:
    """Three channel values -> (3,1,1) float32."""
    return np.array(values, np.float32).reshape(3, 1, 1)


def _share(cover: NDArray[np.uint8]) -> Floats:
    """Coverage 0 to 255 -> [0,1]."""
    return cover * np.float32(1 / 255)


def _clouds(side: int, across: int, down: int, noise: np.random.Generator) -> Floats:
    """(side,side) smooth noise in about [0,1] with that many lumps across and down."""
    coarse = noise.random((down + 1, across + 1), dtype=np.float32)
    smooth: Floats = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return smooth


def _mix(share: Floats, first: Sequence[float], second: Sequence[float]) -> Floats:
    """(H,W) shares in [0,1] -> (3,H,W): 0 gives the first colour, 1 the second."""
    start, end = _planes(first), _planes(second)
    return start + share * (end - start)


Ground = Callable[[int, random.Random, np.random.Generator], tuple[Floats, Floats]]


def _grass(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    blades = cv2.blur(noise.random((side, side), dtype=np.float32), (1, max(3, side // 16)))
    return _mix(_clouds(side, 4, 4, noise), (62, 122, 40), (106, 160, 56)), 0.45 + 1.1 * blades


def _sand(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    y = np.linspace(0, rng.uniform(5, 8), side, dtype=np.float32)[:, None]
    ripples = np.sin(2 * np.pi * (y + _clouds(side, 3, 3, noise)))
    grain = noise.random((side, side), dtype=np.float32)
    return _mix(_clouds(side, 3, 3, noise), (226, 196, 140), (204, 170, 112)), 0.9 + 0.05 * ripples + 0.14 * grain


def _water(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    y = np.linspace(0, rng.uniform(7, 11), side, dtype=np.float32)[:, None]
    waves: Floats = np.sin(np.float32(2 * np.pi) * (y + np.float32(1.3) * _clouds(side, 6, 3, noise)))
    return _mix(np.float32(0.5) * (waves + 1), (22, 78, 140), (52, 128, 186)), 0.95 + 0.45 * np.maximum(waves - 0.75, 0)


def _bricks(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    height = side * rng.uniform(0.09, 0.13)
    y = np.arange(side, dtype=np.float32)[:, None] / height + rng.random()
    row = np.floor(y)
    x = np.arange(side, dtype=np.float32) / (2.2 * height) + 0.5 * (row % 2) + rng.random()
    shades = noise.random((64, 64), dtype=np.float32)
    shade = shades[row.astype(int) % 64, np.floor(x).astype(int) % 64]
    colour = _mix(shade, (142, 62, 48), (182, 92, 68))
    mortar = (y % 1 < 0.14) | (x % 1 < 0.07)
    return np.where(mortar, _planes((198, 190, 178)), colour), 0.93 + 0.14 * noise.random(
        (side, side), dtype=np.float32
    )


def _wood(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    plank = np.arange(side, dtype=np.float32) / (side * rng.uniform(0.2, 0.28)) + rng.random()
    shade = noise.random(16, dtype=np.float32)[np.floor(plank).astype(int)]
    grain = np.sin(2 * np.pi * (5 * plank + 1.5 * _clouds(side, 8, 2, noise)))
    colour = _mix(np.broadcast_to(shade, (side, side)), (112, 72, 40), (150, 102, 60))
    return colour, np.where(plank % 1 < 0.06, np.float32(0.5), 0.98 + 0.1 * grain)


def _snow(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    sparkle = noise.random((side, side), dtype=np.float32)
    return _mix(_clouds(side, 3, 4, noise), (246, 248, 252), (206, 218, 236)), 0.94 + 0.08 * sparkle


def _sky(side: int, rng: random.Random, noise: np.random.Generator) -> tuple[Floats, Floats]:
    lumps = 0.7 * _clouds(side, 3, 5, noise) + 0.3 * _clouds(side, 8, 10, noise)
    return _mix(((lumps - np.float32(0.5)) * np.float32(3.5)).clip(0, 1), (104, 170, 232), (242, 246, 250)), np.ones(
        (side, side), np.float32
    )


_GROUNDS: dict[str, Ground] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "bricks": _bricks,
    "wood": _wood,
    "snow": _snow,
    "sky": _sky,
}
