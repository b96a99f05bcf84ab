"""What a few masks of a set tell of how all are encoded, where that may not be what the set's data file says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.benchmarks.base import IGNORE
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.notices import Notices

UNKNOWN = -1
_INSTANCES = 1000  # class * 1000 + number, as Cityscapes counts its instances
_CITYSCAPES = (19, 33)  # classes that are measured, highest of all ids
_FEWEST_RAMPS = 20
_ENOUGH = 4  # masks that one value alone is odd in


@dataclass(frozen=True)
class Seen:
    """A mask that was looked at: its values (H,W), and which there are, sorted."""

    path: Path
    values: NDArray[np.integer[Any]]
    found: tuple[int, ...]


def voc_color(index: int) -> tuple[int, ...]:
    """VOC's color of a class: three bits of the index at a time, lowest first, fill red, green, blue from the top."""
    return tuple(sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))


def note_signs(masks: Sequence[Seen], spec: SetSpec, table: NDArray[np.int16], notices: Notices) -> None:
    """Note what these masks have in common and masks of the set that ``spec`` describes should not.

    ``table`` is the class index, ``IGNORE`` or ``UNKNOWN`` of each mask value.
    """
    known = [mask for mask in masks if mask.found[0] >= 0 and mask.found[-1] < len(table)]
    found = sorted({value for mask in known for value in mask.found if 0 <= table[value] < IGNORE})
    paths = [str(mask.path) for mask in known]
    _note_0_and_255(known, table, notices)
    if not found:
        return
    counted = spec.values is None and spec.first == 0
    if counted and found[0] == 1 and (len(known) > 1 or spec.background_index() == 0):
        first = next(iter(spec.classes))
        notices.assumed(
            "mask",
            f"value 0, of the class {first}, is in none of these, and value 1 is",
            *paths,
            hint="If the masks count classes from 1, write `first: 1` in the set's data file.",
        )
    if len(known) >= _ENOUGH and len(found) == 1 and all(mask.found == (found[0],) for mask in known):
        notices.assumed("mask", f"these hold value {found[0]} only", *paths, hint="Check that the masks are whole.")
    if counted and (sign := _odd_values([value for value in found if value])):
        notices.assumed("mask", sign, *paths, hint="Take the set's own masks, with the classes' numbers in them.")
    for mask in known:
        if _is_interpolated(mask.values, table):
            notices.assumed(
                "mask",
                "values climb in steps between regions, as after a resize with interpolation; they count as classes",
                str(mask.path),
                hint="Resize masks by nearest neighbor.",
            )


def guess(strange: NDArray[np.integer[Any]], table: NDArray[np.int16]) -> str:
    """What may have been done to masks with these values, which ``table`` does not know; empty for no idea."""
    classes = np.flatnonzero((table >= 0) & (table < IGNORE))
    values, count = set(strange.tolist()), len(np.unique(table[classes]))
    if values == {0}:
        return "If 0 marks pixels that do not count, write `ignore: [0, 255]`; if it is the first class, `first: 0`. "
    if classes.size and values == {int(classes[-1]) + 1} and count > 1 and classes[0] == 0:
        return "If the masks count classes from 1, write `first: 1` in the set's data file. "
    if strange.min() > 255 and not (strange % 257).any():
        return "These are multiples of 257, as of 8-bit values that were stretched to 16 bits. "
    if strange.min() > 255 and not (strange % 256).any():
        return "These are multiples of 256, as of 8-bit values in the high bytes of 16 bits. "
    instances = strange.min() >= _INSTANCES and strange.max() // _INSTANCES < len(table)
    if instances and (table[strange // _INSTANCES] != UNKNOWN).all():
        return f"These may be instances, class times {_INSTANCES:,} plus a number; take the masks of classes. "
    if count == _CITYSCAPES[0] and count <= strange.max() <= _CITYSCAPES[1]:
        return "These may be Cityscapes' labelIds, where the data file counts trainIds. "
    if strange.min() > 0 and values <= _voc_grays():
        return "These are the grays of VOC's palette, as of palette masks that were converted to grayscale. "
    steps = set(np.diff(strange).tolist())
    if strange.max() <= 255 and len(steps) == 1 and max(steps) > 1:
        return "These are evenly spaced, as of indices that were stretched to be seen. "
    return ""


def _note_0_and_255(masks: Sequence[Seen], table: NDArray[np.int16], notices: Notices) -> None:
    """Masks whose object would be ignored: most are of 0 and 255, and none uses 255 beside a class."""
    if table[255] != IGNORE or not 0 <= table[0] < IGNORE:
        return
    binary = [mask for mask in masks if mask.found == (0, 255)]
    others = [mask for mask in masks if mask not in binary and mask.found != (0,)]
    if 2 * len(binary) > len(masks) and not any(255 in mask.found for mask in others):
        notices.assumed(
            "mask",
            "these hold 0 and 255 only, and 255 is ignored: what it marks counts nowhere",
            *(str(mask.path) for mask in binary),
            hint="If 255 marks an object, write `values: {background: 0, object: 255}` and `ignore: []` in the "
            "set's data file.",
        )


def _odd_values(values: Sequence[int]) -> str:
    """What is odd about all values but 0 that a few masks hold; empty for nothing."""
    step = gcd(*values) if values else 0
    if len(values) > 2 and max(values) > 20 and set(values) <= _voc_grays():
        return "all values are grays of VOC's palette, as of palette masks that were converted to grayscale"
    if (len(values) > 3 and step > 3) or (len(values) > 5 and step > 1):
        return f"all values are multiples of {step}, as of indices that were stretched to be seen"
    return ""


def _voc_grays() -> set[int]:
    """The luminance of VOC's classes, as Pillow computes it."""
    weights = (19595, 38470, 7471)
    colors: Iterable[tuple[int, ...]] = map(voc_color, range(1, 21))
    return {
        (sum(weight * part for weight, part in zip(weights, color, strict=True)) + 0x8000) >> 16 for color in colors
    }


def _is_interpolated(values: NDArray[np.integer[Any]], table: NDArray[np.int16]) -> bool:
    """Whether values between those of two regions lie on their border, at a third of the places or more."""
    before, here, after = values[:, :-2], values[:, 1:-1], values[:, 2:]
    changes = before != here
    if values.shape[1] < 3 or 2 * np.count_nonzero(changes) > changes.size:  # noise, not regions
        return False
    rows, columns = np.nonzero(before != after)
    low, middle, high = (one[rows, columns].astype(np.int64) for one in (before, here, after))
    apart = np.abs(high - low) > 1
    apart &= (table[low] != IGNORE) & (table[middle] != IGNORE) & (table[high] != IGNORE)
    between = apart & (np.minimum(low, high) < middle) & (middle < np.maximum(low, high))
    sharp = apart & ((middle == low) | (middle == high))
    ramps = np.count_nonzero(between)
    return bool(ramps >= _FEWEST_RAMPS and 2 * ramps >= np.count_nonzero(sharp))
