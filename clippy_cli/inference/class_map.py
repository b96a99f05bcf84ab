"""The winner of each pixel from maps on a grid: exact, and without work for maps that cannot win.

Bilinear interpolation and a dot product commute, so upsampling K similarities equals upsampling D features and then
comparing them with K texts. And the difference of two maps is bilinear within each cell of the grid, so a map that is
behind another at all four corners of a cell wins no pixel in it. Both facts are used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from clippy_cli.inference.cells import Axis, contested, contested_cells, fill, solve
from clippy_cli.inference.upsampling import WIDEST_GRID, strips, upsample_rows

_UINT8_MAX = 255
_CPU_STRIP_PIXELS = 400_000
_GPU_STRIP_ELEMENTS = 64_000_000  # values of upsampled maps at a time: 256 MB
_STRIP_ELEMENTS = 2_000_000  # the same where maps are as large as the photo: 8 MB


@dataclass(frozen=True)
class Strip:
    """Rows ``start`` to ``stop`` of an image: the ``code`` (R,W) of the highest map at each pixel."""

    start: int
    stop: int
    code: Tensor
    _value: Callable[[], Tensor]

    @property
    def value(self) -> Tensor:
        """(R,W) float: how high it is there; arranged when it is asked for."""
        return self._value()


def class_map(maps: Tensor, classes: Sequence[int], height: int, width: int) -> Tensor:
    """(K,h,w) similarities -> (height,width) uint8: the class of the text that is highest after bilinear upsampling.

    ``classes[k]`` is the class of text k; with classes beyond 255 the result is int16. Of equal texts the first wins.
    The pixel rule is that of ``interpolate(mode="bilinear", align_corners=False)``. Memory is a few hundred megabytes
    at most.
    """
    if len(classes) != len(maps):
        raise ValueError(f"{len(maps)} maps and {len(classes)} classes")
    dtype = torch.uint8 if max(classes) <= _UINT8_MAX else torch.int16
    painted = torch.empty(height, width, dtype=dtype, device=maps.device)
    for strip in winners(maps, torch.tensor(classes, dtype=dtype, device=maps.device), height, width):
        painted[strip.start : strip.stop] = strip.code
    return painted


def winners(maps: Tensor, codes: Tensor, height: int, width: int) -> Iterator[Strip]:
    """The highest of (K,h,w) maps at each of height x width pixels, in strips of rows from the top; map k has code k.

    Upsampled as by ``interpolate(mode="bilinear", align_corners=False)``; of equal maps the first wins. Memory is that
    of a strip, and a few times as much.
    """
    if maps.device.type != "cpu":
        # Finding contenders would make an accelerator wait for the host, and it is quick enough without.
        yield from _by_pixels(maps, codes, height, width, _GPU_STRIP_ELEMENTS)
    elif maps.shape[1:] == (height, width) and len(maps) <= _UINT8_MAX + 1:
        yield from _by_planes(maps, codes, height, width)
    elif maps.shape[1:] == (height, width):
        yield from _by_pixels(maps, codes, height, width, _STRIP_ELEMENTS)
    elif maps.shape[2] <= WIDEST_GRID:
        yield from _by_cells(maps, codes, height, width)
    else:
        yield from _by_borders(maps, codes, height, width)


def _by_pixels(maps: Tensor, codes: Tensor, height: int, width: int, elements: int) -> Iterator[Strip]:
    """Every map at every pixel."""
    for start, stop, values in strips(maps, height, width, elements=elements):
        value, winner = values.max(dim=0)
        yield Strip(start, stop, codes[winner], partial(_same, value))


def _by_planes(maps: Tensor, codes: Tensor, height: int, width: int) -> Iterator[Strip]:
    """Map after map: on a CPU several times as quick as a maximum with its position over the first axis."""
    step = max(1, _CPU_STRIP_PIXELS // width)
    for start in range(0, height, step):
        planes = maps[:, start : start + step].float().numpy()
        value, winner = planes[0].copy(), np.zeros(planes[0].shape, np.uint8)
        for place, plane in enumerate(planes[1:], start=1):
            higher = cv2.compare(plane, value, cv2.CMP_GT)  # 255 where it is
            winner = cv2.bitwise_or(cv2.bitwise_and(higher, place), cv2.subtract(winner, higher))
            cv2.max(plane, value, value)
        code = codes.index_select(0, torch.from_numpy(winner).flatten().int()).view(winner.shape)
        yield Strip(start, start + len(value), code, partial(_same, torch.from_numpy(value)))


def _by_cells(maps: Tensor, codes: Tensor, height: int, width: int) -> Iterator[Strip]:
    """Cell by cell, the contenders of each: for grids much coarser than the pixels."""
    rows, columns = Axis(maps.shape[1], height), Axis(maps.shape[2], width)
    step = max(1, _CPU_STRIP_PIXELS // (rows.most * columns.most * len(columns)))
    for first in range(0, len(rows), step):
        last = min(first + step, len(rows))
        row = torch.arange(first, last).repeat_interleave(len(columns))
        code, value, order = solve(maps, codes, row, torch.arange(len(columns)).repeat(last - first), rows, columns)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        arranged = partial(_arranged, place, rows, columns, rows.slots(first, last), columns.slots(0, len(columns)))
        yield Strip(rows.starts[first], rows.starts[last], arranged(code), partial(arranged, value))


def _arranged(place: Tensor, rows: Axis, columns: Axis, down: Tensor, across: Tensor, values: Tensor) -> Tensor:
    """(n,R,S) slots of cells -> the pixels (R',W) that they hold; cell i is at ``place[i]``."""
    cells = values.index_select(0, place).view(-1, len(columns), rows.most, columns.most).transpose(1, 2)
    lines = cells.reshape(-1, len(columns) * columns.most)
    return lines.index_select(0, down).index_select(1, across)


def _by_borders(maps: Tensor, codes: Tensor, height: int, width: int) -> Iterator[Strip]:
    """Where one map is the highest at all four corners of a cell it wins there; the other cells are solved."""
    rows, columns = Axis(maps.shape[1], height), Axis(maps.shape[2], width)
    highest, winner = maps.max(dim=0)  # (h,w)
    mixed, code_of = contested(winner), codes[winner]  # (h+1,w+1), (h,w)
    step = max(1, _CPU_STRIP_PIXELS // width // rows.most)
    for first in range(0, len(rows), step):
        last = min(first + step, len(rows))
        start, stop = rows.starts[first], rows.starts[last]
        if start == stop:
            continue
        code = code_of[rows.first[start:stop]].index_select(1, columns.first)
        value = upsample_rows(highest[None], height, width, start, stop)[0]
        for row, column in contested_cells(mixed, first, last, len(maps)):
            *solved, order = solve(maps, codes, row, column, rows, columns)
            fill((code, value), solved, row[order], column[order], rows, columns, start)
        yield Strip(start, stop, code, partial(_same, value))


def _same(value: Tensor) -> Tensor:
    return value
