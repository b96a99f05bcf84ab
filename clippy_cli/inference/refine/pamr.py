"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, arXiv 2005.08104, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
_CHUNK = 16  # maps that are refined at a time
# The paper divides by the variance; the authors' public code by this share of the deviation, as here: then nothing
# depends on the range of the colours.
_SHARPNESS = 0.1
_OFFSETS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))


def pamr(scores: Tensor, image: Tensor, dilations: Sequence[int] = DILATIONS, iterations: int = ITERATIONS) -> Tensor:
    """(K,H,W) scores, (3,H,W) float photo of the same size -> (K,H,W): neighbours of like colour pull each other.

    In each iteration a pixel becomes the weighted mean of its eight neighbours at each of the ``dilations``; weights
    are a softmax over these of minus the distance in colour, in units of the local deviation. Edges are repeated.
    Weights add up to 1, so that scores which do still do. Memory: as many maps as there are neighbours, and a few times
    16 more.
    """
    weights = affinities(image, dilations)  # (P,H,W)
    refined = torch.empty_like(scores)
    for start in range(0, len(scores), _CHUNK):
        maps = scores[start : start + _CHUNK]
        for _ in range(iterations):
            mixed = torch.zeros_like(maps)
            for weight, neighbour in zip(weights, _neighbours(maps, dilations, centre=False), strict=True):
                mixed.addcmul_(neighbour, weight)
            maps = mixed
        refined[start : start + _CHUNK] = maps
    return refined


def affinities(image: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """(3,H,W) photo -> (P,H,W) weights of the P neighbours of each pixel, row by row within each dilation."""
    count, total = 0, torch.zeros_like(image)
    for neighbour in _neighbours(image, dilations, centre=True):
        total, count = total + neighbour, count + 1
    mean, squares = total / count, torch.zeros_like(image)
    for neighbour in _neighbours(image, dilations, centre=True):
        squares += (neighbour - mean).square()
    deviation = (squares / (count - 1)).sqrt() * _SHARPNESS + 1e-8  # (3,H,W)
    distances = [
        ((neighbour - image).abs() / deviation).mean(dim=0) for neighbour in _neighbours(image, dilations, centre=False)
    ]
    return torch.stack(distances).neg_().softmax(dim=0)


def _neighbours(maps: Tensor, dilations: Sequence[int], *, centre: bool) -> Iterator[Tensor]:
    """Views (n,H,W) of the maps moved to each neighbour in turn, edges repeated; with ``centre`` the pixel itself."""
    height, width = maps.shape[1:]
    reach = max(dilations)
    padded = F.pad(maps[None], (reach, reach, reach, reach), mode="replicate")[0]
    for step in dilations:
        for y, x in _OFFSETS:
            if centre or y or x:
                top, left = reach + y * step, reach + x * step
                yield padded[:, top : top + height, left : left + width]
