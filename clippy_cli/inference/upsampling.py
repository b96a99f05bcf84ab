"""Bilinear upsampling of maps on the patch grid, a strip of pixel rows at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

WIDEST_GRID = 128  # patches; wider maps hold scores of pixels
MAX_WORKING_PIXELS = 512 * 512  # a photo is refined at no more than this; what comes out is upsampled
STRIP_ELEMENTS = 8_000_000  # values of a strip of upsampled maps: 32 MB, and a few times that while it is reduced


def working_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in pixels of no more than 512x512 in all, aspect kept."""
    scale = min(1.0, (MAX_WORKING_PIXELS / (height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def strips(
    maps: Tensor, height: int, width: int, *, first: int = 0, last: int | None = None, elements: int = STRIP_ELEMENTS
) -> Iterator[tuple[int, int, Tensor]]:
    """Pixel rows ``first`` to ``last`` of (K,h,w) maps upsampled to (K,height,width), in strips.

    Yields first row, end and (K,R,width) values, a tensor of its own that the caller may overwrite. A strip holds about
    ``elements`` values, one row at least.
    """
    rows = max(1, elements // (len(maps) * width))
    end = height if last is None else last
    for start in range(first, end, rows):
        stop = min(start + rows, end)
        yield start, stop, upsample_rows(maps, height, width, start, stop)


def upsample_rows(maps: Tensor, height: int, width: int, start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` of (K,h,w) maps resized bilinearly to (K,height,width).

    The pixel rule is that of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``: pixel centers,
    edges repeated.
    """
    if maps.shape[1:] == (height, width):
        return maps[:, start:stop].clone()
    if maps.shape[2] > WIDEST_GRID:
        return _from_pixels(maps, height, width, start, stop)
    weight_y = bilinear_weights(maps.shape[1], height, start, stop)  # (R,h)
    weight_x = bilinear_weights(maps.shape[2], width, 0, width)  # (W,w)
    touched = weight_y.any(dim=0).nonzero()
    first, last = int(touched[0]), int(touched[-1]) + 1
    wide = maps[:, first:last] @ weight_x.T.to(maps)  # (K,r,W): the few grid rows that this strip needs
    return weight_y[:, first:last].to(maps) @ wide  # (K,R,W)


def upsample_columns(maps: Tensor, width: int) -> Tensor:
    """(K,h,w) maps resized bilinearly to (K,h,width), by the same rule."""
    left, right, across = _neighbors(maps.shape[2], width, 0, width, maps)
    return torch.lerp(maps[..., left], maps[..., right], across)


def _from_pixels(maps: Tensor, height: int, width: int, start: int, stop: int) -> Tensor:
    """:func:`upsample_rows` of maps that are about as large as what they become: four values for each."""
    above, below, down = _neighbors(maps.shape[1], height, start, stop, maps)
    left, right, across = _neighbors(maps.shape[2], width, 0, width, maps)
    rows = torch.lerp(maps[:, above], maps[:, below], down[:, None])  # (K,R,w)
    return torch.lerp(rows[..., left], rows[..., right], across)


def _neighbors(size_in: int, size_out: int, start: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two input positions of output positions ``start`` to ``stop``, and the share in [0, 1] of the second."""
    centers = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (size_in / size_out) - 0.5
    centers = centers.clamp(min=0.0, max=size_in - 1.0)
    first = centers.floor().long()
    second = (first + 1).clamp(max=size_in - 1)
    return first.to(like.device), second.to(like.device), (centers - first).to(like)


def bilinear_weights(size_in: int, size_out: int, start: int, stop: int) -> Tensor:
    """(stop - start, size_in) float64: what each input position gives to output positions ``start`` to ``stop``."""
    centers = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (size_in / size_out) - 0.5
    centers = centers.clamp(min=0.0, max=size_in - 1.0)
    return (1 - (centers[:, None] - torch.arange(size_in)).abs()).clamp(min=0.0)
