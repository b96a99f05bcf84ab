"""From maps on the patch grid to one code a pixel and what is counted of it, at any image size, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.inference.upsampling import STRIP_ELEMENTS, strips

UNLABELLED = 0


@dataclass(frozen=True)
class LabelMap:
    """One code a pixel.

    Attributes:
        codes: (H,W) int16; 0 is unlabelled or background, 1 to L are the labels (or groups) in their order.
        pixels: (L+1,) int64, how many pixels bear each code.
        scores: (L+1,) float64, mean score of the pixels of each code; nan where there is none.
    """

    codes: NDArray[np.int16]
    pixels: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """(L+1,) fraction of the image's pixels in [0, 1]; they add up to 1."""
        return self.pixels / self.codes.size


def paint(
    maps: Tensor,
    height: int,
    width: int,
    codes: Sequence[int],
    *,
    softmax: bool = False,
    threshold: float | None = None,
    fallback: int = UNLABELLED,
    barred: Tensor | None = None,
    count: int | None = None,
    strip_elements: int = STRIP_ELEMENTS,
) -> LabelMap:
    """Upsample (K,h,w) maps bilinearly to height x width pixels and give each pixel the code of its highest map.

    ``codes[k]`` is what map k paints; several maps may paint one code. The score of a pixel is its highest value, or
    with ``softmax`` that map's probability in [0, 1] among the K. Pixels that score below ``threshold`` get the code
    ``fallback``. ``barred`` (K,) bool names maps that cannot win but keep their share of the probability.
    ``count`` is the number of codes that are counted, by default up to the highest.
    """
    if len(codes) != len(maps):
        raise ValueError(f"{len(maps)} maps and {len(codes)} codes")
    count = count or max(*codes, fallback) + 1
    code_of = torch.tensor(codes, device=maps.device)
    pixels, sums = np.zeros(count, np.int64), np.zeros(count)
    painted = np.empty((height, width), np.int16)
    for start, stop, strip in strips(maps, height, width, elements=strip_elements):  # (K,R,W)
        score, winner = strip.max(dim=0) if barred is None else _best_of_free(strip, barred)  # (R,W)
        if softmax:
            score = _probability(strip, score, whole=barred is None)
        code = code_of[winner]
        if threshold is not None:
            code = torch.where(score < threshold, fallback, code)
        flat = code.cpu().numpy().ravel()
        painted[start:stop] = flat.reshape(stop - start, width)
        pixels += np.bincount(flat, minlength=count)
        sums += np.bincount(flat, weights=score.cpu().numpy().ravel(), minlength=count)
    return LabelMap(painted, pixels, _means(sums, pixels))


def scored_map(maps: Tensor, codes: Tensor, count: int, *, softmax: bool) -> LabelMap:
    """The label map of (H,W) codes that the highest of the (K,h,w) maps gave, scored as :func:`paint` does."""
    height, width = codes.shape
    painted = codes.cpu().numpy().astype(np.int16)
    sums = np.zeros(count)
    for start, stop, strip in strips(maps, height, width):
        score = strip.amax(dim=0)  # (R,W)
        if softmax:
            score = _probability(strip, score)
        sums += np.bincount(painted[start:stop].ravel(), weights=score.cpu().numpy().ravel(), minlength=count)
    pixels = np.bincount(painted.ravel(), minlength=count)
    return LabelMap(painted, pixels, _means(sums, pixels))


def _best_of_free(strip: Tensor, barred: Tensor) -> tuple[Tensor, Tensor]:
    """Highest value and its map (R,W) among the maps that are not barred."""
    free = (~barred).nonzero()[:, 0]
    score, winner = strip[free].max(dim=0)
    return score, free[winner]


def _probability(strip: Tensor, score: Tensor, *, whole: bool = True) -> Tensor:
    """(K,R,W) logits, which are overwritten, and that of the winner (R,W) -> its softmax probability."""
    highest = score if whole else strip.amax(dim=0)
    total = strip.sub_(highest).exp_().sum(dim=0)
    return total.reciprocal_() if whole else (score - highest).exp_().div_(total)


def _means(sums: NDArray[np.float64], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.divide(sums, pixels, out=np.full(len(sums), np.nan), where=pixels > 0)
    return means
