"""From maps on the patch grid to one code a pixel, at any image size, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNLABELLED = 0
STRIP_ELEMENTS = 8_000_000  # values of a strip of upsampled maps: 32 MB, and a few times that while it is reduced


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
    strip_elements: int = STRIP_ELEMENTS,
) -> LabelMap:
    """Upsample (K,h,w) maps bilinearly to height x width pixels and give each pixel the code of its highest map.

    ``codes[k]`` is what map k paints; several maps may paint one code. The score of a pixel is its highest value, or
    with ``softmax`` that map's probability in [0, 1] among the K. Pixels that score below ``threshold`` become 0. Work
    goes in strips of rows, so that memory does not grow with K times the image.
    """
    if len(codes) != len(maps):
        raise ValueError(f"{len(maps)} maps and {len(codes)} codes")
    count = max(codes) + 1
    code_of = torch.tensor(codes, device=maps.device)
    pixels, sums = np.zeros(count, np.int64), np.zeros(count)
    painted = np.empty((height, width), np.int16)
    rows = max(1, strip_elements // (len(maps) * width))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        strip = upsample_rows(maps, height, width, start, stop)  # (K,R,W)
        score, winner = strip.max(dim=0)  # (R,W)
        if softmax:
            score = strip.sub_(score).exp_().sum(dim=0).reciprocal_()
        code = code_of[winner]
        if threshold is not None:
            code = torch.where(score < threshold, UNLABELLED, code)
        flat = code.cpu().numpy().ravel()
        painted[start:stop] = flat.reshape(stop - start, width)
        pixels += np.bincount(flat, minlength=count)
        sums += np.bincount(flat, weights=score.cpu().numpy().ravel(), minlength=count)
    means = np.divide(sums, pixels, out=np.full(count, np.nan), where=pixels > 0)
    return LabelMap(painted, pixels, means)


def upsample_rows(maps: Tensor, height: int, width: int, start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` of (K,h,w) maps resized bilinearly to (K,height,width).

    The pixel rule is that of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``: pixel centres,
    edges repeated.
    """
    if maps.shape[1:] == (height, width):
        return maps[:, start:stop].clone()
    weight_y = bilinear_weights(maps.shape[1], height, start, stop)  # (R,h)
    weight_x = bilinear_weights(maps.shape[2], width, 0, width)  # (W,w)
    touched = weight_y.any(dim=0).nonzero()
    first, last = int(touched[0]), int(touched[-1]) + 1
    wide = maps[:, first:last] @ weight_x.T.to(maps)  # (K,r,W): the few grid rows that this strip needs
    return weight_y[:, first:last].to(maps) @ wide  # (K,R,W)


def bilinear_weights(size_in: int, size_out: int, start: int, stop: int) -> Tensor:
    """(stop - start, size_in) float64: what each input position gives to output positions ``start`` to ``stop``."""
    centres = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (size_in / size_out) - 0.5
    centres = centres.clamp(min=0.0, max=size_in - 1.0)
    return (1 - (centres[:, None] - torch.arange(size_in)).abs()).clamp(min=0.0)
