"""The squares between neighboring centers of a grid: which pixels lie in each, and which of K maps wins them.

The grid is repeated by one at its edges, so that h x w values have (h+1) x (w+1) cells. In a cell a map's value is
a + b x + c y + d xy with x and y in [0, 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CELL_VALUES = 1_000_000  # corner values of contested cells at a time: 4 MB


class Axis:
    """The cells of a grid along one side of an image.

    Attributes:
        starts: the first pixel of each of the n cells, and the end.
        most: the pixels of the cell that has most.
        within: (n,most) float32, where in its cell each pixel lies, in [0, 1).
        before, after: (n,) the grid's values at either side of each cell.
        first: (pixels,) the value before each pixel.
    """

    def __init__(self, grid: int, size: int) -> None:
        centers = (torch.arange(size, dtype=torch.float64) + 0.5) * (grid / size) + 0.5
        cell = centers.floor().long().clamp(max=grid)
        counts = torch.bincount(cell, minlength=grid + 1)
        starts = counts.cumsum(0) - counts
        self.most = int(counts.max())
        self.within = torch.zeros(len(counts), self.most)
        self.within[cell, torch.arange(size) - starts[cell]] = (centers - cell).float()
        self.starts = [*starts.tolist(), size]
        self.before = torch.arange(-1, grid).clamp(min=0)
        self.after = torch.arange(grid + 1).clamp(max=grid - 1)
        self.first = self.before[cell]

    def __len__(self) -> int:
        return len(self.within)

    def slots(self, first: int, last: int) -> Tensor:
        """Where the pixels of cells ``first`` to ``last`` lie when each cell is given ``most`` slots."""
        pairs = itertools.pairwise(self.starts[first : last + 1])
        return torch.cat([torch.arange(stop - start) + cell * self.most for cell, (start, stop) in enumerate(pairs)])

    def pixels(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) cells -> the pixel of each of their slots (n,most), and whether there is one (n,most) bool."""
        starts = torch.tensor(self.starts)
        places = starts[cells][:, None] + torch.arange(self.most)
        return places, places < starts[cells + 1][:, None]


def solve(
    maps: Tensor, codes: Tensor, row: Tensor, column: Tensor, rows: Axis, columns: Axis
) -> tuple[Tensor, Tensor, Tensor]:
    """Which of (K,h,w) maps is highest in n cells, given by ``row`` (n,) and ``column`` (n,), and how high it is there.

    Returns codes (n,R,S) and values (n,R,S), a slot for each pixel, and which of the n cells each is (n,). Of equal
    maps the first wins; map k has code k of ``codes`` (K,).
    """
    flat, width, count = maps.flatten(1), maps.shape[2], len(row)
    top, bottom = rows.before[row] * width, rows.after[row] * width
    left, right = columns.before[column], columns.after[column]
    places = torch.cat([top + left, top + right, bottom + left, bottom + right])
    corners = flat.index_select(1, places).view(len(maps), 4, count).transpose(0, 1)  # (4,K,n)
    order, texts, cells, alive = _contenders(corners)
    v00, v01, v10, v11 = corners[:, texts, cells][..., None]  # (m,1) each
    x = columns.within[column[cells]]  # (m,S)
    above = torch.addcmul(v00, v01 - v00, x)
    slope = torch.addcmul(v10, v11 - v10, x).sub_(above)  # both (m,S)
    painted = codes[texts]  # (m,)
    y = rows.within[row[order]][:, :, None]  # (n,R,1)
    best = torch.addcmul(above[:count, None], slope[:count, None], y)  # (n,R,S)
    won = painted[:count, None, None].expand(best.shape).contiguous()
    start = count
    for n in alive[1:]:
        value = torch.addcmul(above[start : start + n, None], slope[start : start + n, None], y[:n])
        torch.where(value > best[:n], painted[start : start + n, None, None], won[:n], out=won[:n])
        torch.maximum(best[:n], value, out=best[:n])
        start += n
    return won, best, order


def contested(winner: Tensor) -> Tensor:
    """(h,w) highest map of each grid value -> (h+1,w+1) bool: the cells whose corners have not all the same one."""
    padded = F.pad(winner[None, None].float(), (1, 1, 1, 1), mode="replicate")[0, 0]
    corner = padded[:-1, :-1]
    return (padded[:-1, 1:] != corner) | (padded[1:, :-1] != corner) | (padded[1:, 1:] != corner)


def contested_cells(mixed: Tensor, first: int, last: int, maps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of the cells of ``mixed`` in rows ``first`` to ``last``, as many at a time as memory allows."""
    row, column = mixed[first:last].nonzero(as_tuple=True)
    step = max(1, _CELL_VALUES // (4 * maps))
    for start in range(0, len(row), step):
        yield row[start : start + step] + first, column[start : start + step]


def fill(
    strips: Sequence[Tensor],
    solved: Sequence[Tensor],
    row: Tensor,
    column: Tensor,
    rows: Axis,
    columns: Axis,
    top: int,
) -> None:
    """Write what :func:`solve` gave into strips (R,W) whose first row is pixel row ``top``."""
    down, there = rows.pixels(row)
    across, here = columns.pixels(column)
    inside = there[:, :, None] & here[:, None, :]  # (n,R,S)
    flat = ((down - top)[:, :, None] * strips[0].shape[1] + across[:, None, :])[inside]
    for strip, values in zip(strips, solved, strict=True):
        strip.view(-1)[flat] = values[inside].to(strip.dtype)


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
