"""The one face of every semantic segmentation benchmark."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clippy_cli.errors import ClippyError

DATA_VARIABLE = "CLIPPY_DATA"


@dataclass(frozen=True)
class BenchmarkClass:
    """A class as the benchmark calls it, and the words that a model is asked for it."""

    name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class SegmentedImage:
    """An image (H,W,3) uint8 RGB and the class index of each pixel (H,W) int64, ``ignore_index`` where none counts."""

    key: str
    image: NDArray[np.uint8]
    mask: NDArray[np.int64]


class SegmentationBenchmark(Protocol):
    """A set of annotated images.

    Attributes:
        name: as reports call it.
        classes: in the order of the mask's indices.
        background_index: the class that stands for everything else, or None where there is none such.
        context: further words to ask the model for, all of which count as background.
        ignore_index: mask value of pixels that do not count.
    """

    name: str
    classes: tuple[BenchmarkClass, ...]
    background_index: int | None
    context: tuple[str, ...]
    ignore_index: int

    def __len__(self) -> int: ...

    def read(self, index: int) -> SegmentedImage:
        """Image ``index``; ClippyError where it or its mask cannot be used."""
        ...


def data_root(option: Path | None) -> Path:
    """The folder that holds the data sets: the option's, else the environment's CLIPPY_DATA; ClippyError without."""
    named = option or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if named is None:
        raise ClippyError(
            "No data folder is named",
            f"Give --data-root FOLDER, or set {DATA_VARIABLE} to the folder that holds VOCdevkit.",
        )
    if not named.is_dir():
        raise ClippyError(f"{named}: no such folder", f"Check --data-root or {DATA_VARIABLE}.")
    return named
