"""From maps on the patch grid to one code a pixel and what is counted of it, at any image size, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.inference.cells import Axis
from clippy_cli.inference.class_map import winners
from clippy_cli.inference.upsampling import strips, upsample_columns, upsample_rows, working_size

UNLABELLED = 0
_TOTAL_ELEMENTS = 250_000  # values of upsampled maps at a time: 1 MB, which stays in a core's cache
_SAFE_RANGE = 80.0  # exponentials of differences below this are numbers in float32


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
    scale: float = 1.0,
    threshold: float | None = None,
    fallback: int = UNLABELLED,
    barred: Tensor | None = None,
    count: int | None = None,
) -> LabelMap:
    """Upsample (K,h,w) maps bilinearly to height x width pixels and give each pixel the code of its highest map.

    ``codes[k]`` is what map k paints; several maps may paint one code. The score of a pixel is its highest value, or
    with ``softmax`` that map's probability in [0, 1] among the K times ``scale``. Pixels that score below ``threshold``
    get the code ``fallback``. ``barred`` (K,) bool names maps that cannot win but keep their share of the probability.
    ``count`` is the number of codes that are counted, by default up to the highest.

    Beyond ``MAX_WORKING_PIXELS`` pixels the probability's denominator is taken at that many and interpolated: it is
    smooth, and means of scores move by 1e-4 or so.
    """
    if len(codes) != len(maps):
        raise ValueError(f"{len(maps)} maps and {len(codes)} codes")
    count = count or max(*codes, fallback) + 1
    code_of = torch.tensor(codes, dtype=torch.int16, device=maps.device)
    free = maps
    if barred is not None:
        places = (~barred).nonzero()[:, 0]
        free, code_of = maps[places], code_of[places]
    total = _log_total(maps * scale, *working_size(height, width)) if softmax else None  # (1,h',w')
    pixels, sums = np.zeros(count, np.int64), np.zeros(count)
    painted = np.empty((height, width), np.int16)
    for strip in winners(free, height, width):
        score, code = strip.value, code_of.index_select(0, strip.winner.reshape(-1).int()).view(strip.winner.shape)
        if total is not None:
            score = (score * scale - upsample_rows(total, height, width, strip.start, strip.stop)[0]).exp_()
        if threshold is not None:
            code = code.masked_fill(score < threshold, fallback)
        rows = code.cpu().numpy()
        painted[strip.start : strip.stop] = rows
        pixels += np.bincount(rows.ravel(), minlength=count)
        sums += np.bincount(rows.ravel(), weights=score.cpu().numpy().ravel(), minlength=count)
    return LabelMap(painted, pixels, _means(sums, pixels))


def _log_total(maps: Tensor, height: int, width: int) -> Tensor:
    """(K,h,w) logits -> (1,height,width), the logarithm of the sum of their exponentials after upsampling.

    Down the pixels of a cell logits change linearly, so that an exponential is the one above it times a constant.
    """
    total = maps.new_empty(1, height, width)
    lowest, highest = maps.aminmax()
    if maps.shape[1:] == (height, width) or float(highest - lowest) > _SAFE_RANGE:
        for start, stop, strip in strips(maps, height, width, elements=_TOTAL_ELEMENTS):
            total[0, start:stop] = strip.logsumexp(dim=0)
        return total
    wide = upsample_columns(maps, width).sub_(highest)  # (K,h,W)
    rows = Axis(maps.shape[1], height)
    for cell, (start, stop) in enumerate(itertools.pairwise(rows.starts)):
        above = wide[:, rows.before[cell]]
        slope = wide[:, rows.after[cell]] - above  # (K,W)
        values = torch.add(above, slope, alpha=float(rows.within[cell, 0])).exp_()
        factor = (slope * (len(wide[0]) / height)).exp_()
        for row in range(start, stop):
            torch.sum(values, dim=0, out=total[0, row])
            values *= factor
    return total.log_().add_(highest)


def _means(sums: NDArray[np.float64], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.divide(sums, pixels, out=np.full(len(sums), np.nan), where=pixels > 0)
    return means
