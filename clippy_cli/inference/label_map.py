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
from clippy_cli.inference.upsampling import strips, upsample_columns

UNLABELLED = 0
_PLAIN_ELEMENTS = 2_000_000  # values of upsampled maps at a time: 8 MB
_CACHED_ELEMENTS = 100_000  # values that stay in a core's cache while sums run down them: 400 kB
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
    """
    if len(codes) != len(maps):
        raise ValueError(f"{len(maps)} maps and {len(codes)} codes")
    count = count or max(*codes, fallback) + 1
    code_of = torch.tensor(codes, dtype=torch.int16, device=maps.device)
    free = maps
    if barred is not None:
        places = (~barred).nonzero()[:, 0]
        free, code_of = maps[places], code_of[places]
    total = _LogTotal(maps * scale, height, width) if softmax else None
    pixels, sums = np.zeros(count, np.int64), np.zeros(count)
    painted = np.empty((height, width), np.int16)
    for strip in winners(free, code_of, height, width):
        code, score = strip.code, strip.value
        if total is not None:
            score = (score * scale - total.rows(strip.start, strip.stop)).exp_()
        if threshold is not None:
            code = code.masked_fill(score < threshold, fallback)
        rows = code.cpu().numpy()
        painted[strip.start : strip.stop] = rows
        pixels += np.bincount(rows.ravel(), minlength=count)
        sums += np.bincount(rows.ravel(), weights=score.cpu().numpy().ravel(), minlength=count)
    return LabelMap(painted, pixels, _means(sums, pixels))


class _LogTotal:
    """The logarithm of the sum of the exponentials of (K,h,w) logits, upsampled to height x width pixels.

    Down the pixels of a cell logits change linearly, so that an exponential is the one above it times a constant: each
    costs a product and a sum.
    """

    def __init__(self, logits: Tensor, height: int, width: int) -> None:
        self._logits, self._size = logits, (height, width)
        lowest, self._highest = logits.aminmax()
        self._plain = logits.shape[1:] == self._size or float(self._highest - lowest) > _SAFE_RANGE
        if not self._plain:
            self._wide = upsample_columns(logits, width).sub_(self._highest)  # (K,h,W)
            self._cells = Axis(logits.shape[1], height)

    def rows(self, start: int, stop: int) -> Tensor:
        """Pixel rows ``start`` to ``stop``, (R,W)."""
        height, width = self._size
        total = self._logits.new_empty(stop - start, width)
        if self._plain:
            for first, last, strip in strips(
                self._logits, height, width, first=start, last=stop, elements=_PLAIN_ELEMENTS
            ):
                total[first - start : last - start] = strip.logsumexp(dim=0)
            return total
        for cell, (top, bottom) in enumerate(itertools.pairwise(self._cells.starts)):
            first, last = max(start, top), min(stop, bottom)
            if first < last:
                self._add(total[first - start : last - start], cell, first - top)
        return total.log_().add_(self._highest)

    def _add(self, total: Tensor, cell: int, offset: int) -> None:
        """Fill (R,W) with the sums of a row of cells from its pixel row ``offset``."""
        cells, step = self._cells, max(1, _CACHED_ELEMENTS // len(self._wide))
        for left in range(0, total.shape[1], step):
            columns = slice(left, left + step)
            above = self._wide[:, cells.before[cell], columns]
            slope = self._wide[:, cells.after[cell], columns] - above  # (K,S)
            values = torch.add(above, slope, alpha=float(cells.within[cell, offset])).exp_()
            factor = (slope * (self._wide.shape[1] / self._size[0])).exp_()
            for row in total[:, columns]:
                torch.sum(values, dim=0, out=row)
                values *= factor


def _means(sums: NDArray[np.float64], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.divide(sums, pixels, out=np.full(len(sums), np.nan), where=pixels > 0)
    return means
