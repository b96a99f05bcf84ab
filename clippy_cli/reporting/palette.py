"""Colours for labels: the same code always has the same colour."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

MAX_LABELS = 254  # a palette PNG has 256 indices: 0 is unlabelled, and readers of masks take 255 as "ignore"
_UNLABELLED: RGB = (0, 0, 0)
_IGNORE: RGB = (255, 255, 255)

# Okabe and Ito's colours for colour-blind readers, reordered for contrast between neighbours; indigo stands for their
# black, which is taken by unlabelled pixels.
_FIRST: tuple[RGB, ...] = (
    (230, 159, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (68, 46, 140),
)
# From linear RGB to OKLab (Björn Ottosson, 2020), in which distances follow what the eye sees.
_TO_CONES = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
_TO_LAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])


def colour(code: int) -> RGB:
    """The colour of one code, as RGB in 0 to 255; 0 (unlabelled) is black, codes beyond the palette are white."""
    red, green, blue = palette()[min(code, len(palette()) - 1)].tolist()
    return red, green, blue


@cache
def palette() -> NDArray[np.uint8]:
    """(256,3) uint8 RGB: black, eight fit for colour-blind readers, then each far from all before it; 255 is white."""
    chosen = np.array((_UNLABELLED, *_FIRST), dtype=np.uint8)
    candidates = _candidates()
    lab = _oklab(candidates)
    distances = np.linalg.norm(lab[:, None] - _oklab(chosen)[None], axis=2).min(axis=1)  # (candidates,)
    picked = []
    for _ in range(MAX_LABELS - len(_FIRST)):
        best = int(distances.argmax())
        picked.append(candidates[best])
        distances = np.minimum(distances, np.linalg.norm(lab - lab[best], axis=1))
    table = np.concatenate((chosen, np.stack(picked), np.array([_IGNORE], dtype=np.uint8)))
    table.setflags(write=False)
    return table


def _candidates() -> NDArray[np.uint8]:
    """RGB triples on a grid that are neither dark, nor pale, nor grey, nor glaring."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    return grid[(lab[:, 0] > 0.4) & (lab[:, 0] < 0.9) & (chroma > 0.06) & (chroma < 0.21)]


def _oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,3) sRGB in 0 to 255 -> (n,3) lightness in [0, 1] and two colour axes."""
    values = rgb / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T)
