"""The class of each pixel from similarities on the patch grid: exact, and without work for classes that cannot win.

Bilinear interpolation and a dot product commute, so upsampling K similarities equals upsampling D features and then
comparing them with K texts. And the difference of two texts is bilinear within each cell of the grid, so a text that is
behind another at all four corners of a cell wins no pixel in it. Both facts are used here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.inference.upsampling import WIDEST_GRID, strips

_UINT8_MAX = 255
_CPU_STRIP_PIXELS = 400_000
_GPU_STRIP_ELEMENTS = 64_000_000  # values of upsampled maps at a time: 256 MB


def class_map(maps: Tensor, classes: Sequence[int], height: int, width: int) -> Tensor:
    """(K,h,w) similarities -> (height,width) uint8: the class of the text that is highest after bilinear upsampling.

    ``classes[k]`` is the class of text k; with classes beyond 255 the result is int16. Of equal texts the first wins.
    The pixel rule is that of ``interpolate(mode="bilinear", align_corners=False)``. Memory is a few hundred megabytes
    at most.
    """
    if len(classes) != len(maps):
        raise ValueError(f"{len(maps)} maps and {len(classes)} classes")
    dtype = torch.uint8 if max(classes) <= _UINT8_MAX else torch.int16
    lookup = torch.tensor(classes, dtype=dtype, device=maps.device)
    # Finding contenders would make an accelerator wait for the host, and it is quick enough without.
    cells = maps.device.type == "cpu" and maps.shape[2] <= WIDEST_GRID
    by = _classes_by_cells if cells else _classes_by_strips
    return by(maps, lookup, height, width)


def _classes_by_cells(maps: Tensor, lookup: Tensor, height: int, width: int) -> Tensor:
    classes = torch.empty(height, width, dtype=lookup.dtype)
    cells = _Cells(maps, lookup, height, width)
    rows, end = cells.rows_within(_CPU_STRIP_PIXELS), maps.shape[1] + 1
    for first in range(0, end, rows):
        last = min(first + rows, end)
        classes[cells.tops[first] : cells.tops[last]] = cells.classes(first, last)
    return classes


def _classes_by_strips(maps: Tensor, lookup: Tensor, height: int, width: int) -> Tensor:
    classes = torch.empty(height, width, dtype=lookup.dtype, device=maps.device)
    for start, stop, strip in strips(maps, height, width, elements=_GPU_STRIP_ELEMENTS):
        classes[start:stop] = lookup[strip.argmax(dim=0)]
    return classes


class _Cells:
    """The squares between neighbouring patch centres, each with the pixels in it and the texts that may win one.

    The grid of patches is repeated by one at its edges, so that there are (h+1,w+1) cells. In a cell a text's value is
    a + b x + c y + d xy with x and y in [0, 1).
    """

    def __init__(self, maps: Tensor, lookup: Tensor, height: int, width: int) -> None:
        self._lookup = lookup
        padded = F.pad(maps[None], (1, 1, 1, 1), mode="replicate")[0]  # (K,h+2,w+2)
        self._corners = padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]
        self.tops, self._y = _pixels_of_cells(maps.shape[1], height)  # (h+1,R)
        self._lefts, self._x = _pixels_of_cells(maps.shape[2], width)  # (w+1,S)

    def rows_within(self, pixels: int) -> int:
        """How many rows of cells hold about this many pixels; at least one."""
        return max(1, pixels // (self._y.shape[1] * self._x.numel()))

    def classes(self, first: int, last: int) -> Tensor:
        """The pixels of cell rows ``first`` to ``last``, (R',W) classes."""
        columns, count = len(self._x), (last - first) * len(self._x)
        corners = torch.stack([corner[:, first:last].reshape(-1, count) for corner in self._corners])  # (4,K,n)
        order, texts, cells, alive = _contenders(corners)
        v00, v01, v10, v11 = corners[:, texts, cells][..., None]  # (m,1) each
        x = self._x[cells % columns]  # (m,S)
        above = torch.addcmul(v00, v01 - v00, x)
        slope = torch.addcmul(v10, v11 - v10, x).sub_(above)  # both (m,S)
        classes = self._lookup[texts]  # (m,)
        y = self._y[first + torch.div(order, columns, rounding_mode="floor")][:, :, None]  # (n,R,1)
        best = torch.addcmul(above[:count, None], slope[:count, None], y)  # (n,R,S)
        won = classes[:count, None, None].expand(best.shape).contiguous()
        start = count
        for n in alive[1:]:
            value = torch.addcmul(above[start : start + n, None], slope[start : start + n, None], y[:n])
            torch.where(value > best[:n], classes[start : start + n, None, None], won[:n], out=won[:n])
            torch.maximum(best[:n], value, out=best[:n])
            start += n
        place = torch.empty_like(order)
        place[order] = torch.arange(count)
        won = won.index_select(0, place).view(last - first, columns, y.shape[1], -1).transpose(1, 2)
        within_y = _slots(self.tops[first : last + 1], y.shape[1])
        within_x = _slots(self._lefts, x.shape[1])
        return won.reshape(-1, columns * x.shape[1]).index_select(0, within_y).index_select(1, within_x)


def _contenders(corners: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """(4,K,n) corner values -> which of the K texts may win a pixel in which of the n cells, m pairs in all.

    The text that is highest on average over the corners is a cell's champion; another can beat it somewhere inside only
    if it does so at a corner, because their difference is bilinear.

    Returns the cells by falling number of contenders (n,), and the pairs' texts (m,) and cells (m,): the first
    contender of every cell in that order, then the second of those that have one, and so on, each as many as the list
    says. A cell's texts come in rising order.
    """
    champion = corners.mean(dim=0).argmax(dim=0)  # (n,)
    bar = corners.gather(1, champion.expand(4, 1, -1))  # (4,1,n)
    cell, text = (corners >= bar).any(dim=0).T.nonzero(as_tuple=True)
    counts = torch.bincount(cell, minlength=corners.shape[2])  # at least one: the champion itself
    order = counts.argsort(descending=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    rank = torch.arange(len(cell)) - (counts.cumsum(0) - counts)[cell]
    alive = torch.bincount(rank)  # how many cells have a contender of this rank
    at = (alive.cumsum(0) - alive)[rank] + place[cell]
    texts, cells = torch.empty_like(text), torch.empty_like(cell)
    texts[at], cells[at] = text, cell
    return order, texts, cells, alive.tolist()


def _pixels_of_cells(cells_less_one: int, size: int) -> tuple[list[int], Tensor]:
    """Along one axis: the first pixel of each cell and the end; where in its cell each pixel lies (cells,R)."""
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * (cells_less_one / size) + 0.5
    cell = centres.floor().long().clamp(max=cells_less_one)
    counts = torch.bincount(cell, minlength=cells_less_one + 1)
    starts = counts.cumsum(0) - counts
    within = torch.zeros(len(counts), int(counts.max()))
    within[cell, torch.arange(size) - starts[cell]] = (centres - cell).float()
    return [*starts.tolist(), size], within


def _slots(starts: Sequence[int], size: int) -> Tensor:
    """Where the pixels of cells lie when each cell is given ``size`` slots: indices of those that are used."""
    return torch.cat(
        [torch.arange(stop - start) + cell * size for cell, (start, stop) in enumerate(itertools.pairwise(starts))]
    )
