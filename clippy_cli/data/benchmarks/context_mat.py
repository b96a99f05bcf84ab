"""PASCAL-Context as its authors publish it: a MATLAB file of 459 classes for each photo of VOC 2010."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet
from clippy_cli.data.benchmarks.mask_signs import UNKNOWN
from clippy_cli.data.benchmarks.masks import MAX_VALUES, MaskSet
from clippy_cli.data.benchmarks.matlab import read_variable
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.images import MAX_PIXELS
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.regular_files import read_text

_VARIABLE = "LabelMap"
_NAMES = "labels.txt"


def open_context(name: str, spec: SetSpec, folder: Path) -> SegmentationSet:
    """The photos that ``spec.listing`` names, with the classes of ``spec`` found by name in ``labels.txt``.

    Every other of the 459 classes is ``spec.background``, or does not count where there is none; so is 0, no label.
    ClippyError where ``labels.txt`` lacks a class.
    """
    path = folder / _NAMES
    numbers = parse_names(path)
    classes = [one for one in spec.classes if one != spec.background]
    lacking = [one for one in classes if one not in numbers]
    if lacking:
        raise ClippyError(
            f"{path}: has no class {', '.join(lacking[:5])} among its {len(numbers)} classes",
            f"Take {_NAMES} of the 459-class release, not 59_labels.txt.",
        )
    order = list(spec.classes)
    table = np.full(MAX_VALUES, UNKNOWN, np.int16)
    table[[0, *numbers.values()]] = IGNORE if spec.background is None else order.index(spec.background)
    for one in classes:
        table[numbers[one]] = order.index(one)
    return MaskSet(name, spec, folder, table, _load)


def parse_names(path: Path) -> dict[str, int]:
    """Class name without spaces -> number, from lines ``number: name``; ClippyError where a line is another."""
    names: dict[str, int] = {}
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "It comes with the 459-class release.") from error
    for line, text in enumerate(lines, start=1):
        number, colon, name = text.partition(":")
        if not text.strip():
            continue
        if not colon or not re.fullmatch(r"\s*\d{1,5}\s*", number) or not 0 < int(number) < MAX_VALUES:
            raise ClippyError(f"{path}:{line}: {text.strip()!r} is no `number: name`", f"Take the release's {_NAMES}.")
        names["".join(name.split())] = int(number)
    return names


def _load(path: Path, notices: Notices) -> NDArray[np.integer[Any]]:
    return read_label_map(path)


def read_label_map(path: Path) -> NDArray[np.integer[Any]]:
    """The class numbers (H,W) in a MATLAB file of the release; ClippyError where it holds something else."""
    hint = "Unpack the 459-class release again."
    values = np.asarray(read_variable(path, _VARIABLE, what="a label map", hint=hint))
    if values.ndim != 2 or not values.size or values.size > MAX_PIXELS:
        shape = "x".join(map(str, values.shape))
        raise ClippyError(f"{path}: {_VARIABLE} is no label map but an array of {shape}", hint)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise ClippyError(f"{path}: {_VARIABLE} holds {values.dtype}, not class numbers", hint)
    return values
