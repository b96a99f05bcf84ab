"""Regions of photos that came from elsewhere, such as a mask generator: one PNG or JSON file a photo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.benchmarks.masks import read_values
from clippy_cli.errors import ClippyError
from clippy_cli.files import stays_below
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_file, is_folder, read_text

NO_REGION = 0
MAX_JSON_BYTES = 64 << 20
MAX_REGIONS = 100_000
MAX_LAYERS = 256  # masks over a pixel, on average; a mask generator gives a photo one to ten
_ENDINGS = (".png", ".json")


def find_regions(folder: Path, name: str) -> Path:
    """``FOLDER/NAME.png`` or ``FOLDER/NAME.json``; ClippyError where there is neither."""
    if stays_below(name):
        for ending in _ENDINGS:
            path = folder / f"{name}{ending}"
            if is_file(path):
                return path
    there = "is not a directory" if not is_folder(folder) else "has neither"
    raise ClippyError(
        f"No regions for {name}: looked for {name}.png and {name}.json; {folder} {there}",
        "--regions takes a folder with one file a photo, named as the photo: a PNG of region numbers, or a JSON list "
        "of COCO RLE masks.",
    )


def read_regions(path: Path, height: int, width: int, *, notices: Notices | None = None) -> NDArray[np.int32]:
    """One file of regions of a photo of height x width pixels -> (H,W) int32, 0 for none, regions from 1 to R.

    In a PNG each value but 0 is a region. In JSON each mask is one, as ``{"size", "counts"}`` or with these below
    ``"segmentation"``, counts compressed or not; where masks overlap the smaller lies on top. ClippyError where the
    file is damaged or of another size.
    """
    values = _from_json(path, height, width) if path.suffix == ".json" else _from_png(path, notices)
    return number_regions(values, height, width, where=str(path))


def number_regions(values: NDArray[Any], height: int, width: int, *, where: str) -> NDArray[np.int32]:
    """(H,W) whole numbers, each but 0 a region -> (H,W) int32, regions from 1 to R in rising order.

    ClippyError, naming ``where``, where they are of another size or no whole numbers from 0.
    """
    if values.ndim != 2 or values.dtype.kind not in "iub" or values.size == 0 or int(values.min()) < 0:
        raise ClippyError(
            f"{where}: an array of shape {values.shape} and type {values.dtype} does not number regions",
            "Pass (H,W) whole numbers: 0 for no region, any other number for one.",
        )
    if values.shape != (height, width):
        raise ClippyError(
            f"{where}: regions of {values.shape[1]}x{values.shape[0]} pixels for a photo of {width}x{height}",
            "Make them at the photo's own size, upright as its EXIF orientation says.",
        )
    found, numbers = np.unique(values, return_inverse=True)
    first = 0 if found[0] == NO_REGION else 1
    closed: NDArray[np.int32] = (numbers.reshape(values.shape) + first).astype(np.int32)
    return closed


def decode_counts(counts: str) -> list[int]:
    """COCO's compressed run lengths -> the runs, of zeros and ones in turn. ValueError where the text is no such.

    Six bits a character from ``0`` on: five of the number, lowest first, and whether more follow; negative numbers are
    sign-extended; from the fourth on a run is stored as its difference from the last but one.
    """
    # Not pycocotools' decoder, since these files come from anywhere: where runs stop before the image does, it returns
    # memory that was never written to (2.0.11), and it needs an (H,W) array for each of up to MAX_REGIONS masks.
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("counts are not COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("counts are cut short")
    return runs


def _from_png(path: Path, notices: Notices | None) -> NDArray[np.integer[Any]]:
    try:
        return read_values(path, notices=notices)
    except ClippyError as error:  # which speaks of a data set's masks
        raise ClippyError(error.message, "Write a PNG of one channel, its values the regions' numbers.") from error


def _from_json(path: Path, height: int, width: int) -> NDArray[np.int32]:
    hint = 'Write a JSON list of COCO RLE masks: [{"size": [height, width], "counts": ...}, ...].'
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ClippyError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB", hint)
        masks = json.loads(read_text(path))
        if not isinstance(masks, list) or len(masks) > MAX_REGIONS:
            raise ValueError(f"no list of at most {MAX_REGIONS} masks")
        runs = [_runs(mask, height, width) for mask in masks]
        areas = [sum(of_mask[1::2]) for of_mask in runs]
        if sum(areas) > MAX_LAYERS * height * width:
            raise ValueError(f"its masks cover each pixel more than {MAX_LAYERS} times on average")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ClippyError(f"{path}: not regions of a photo of {width}x{height} pixels ({error})", hint) from error
    values = np.zeros(height * width, np.int32)
    for index in sorted(range(len(runs)), key=lambda index: -areas[index]):
        edges = np.cumsum(runs[index]).tolist()
        for start, stop in zip(edges[0::2], edges[1::2], strict=False):
            values[start:stop] = index + 1
    return values.reshape(width, height).T  # COCO counts down the columns


def _runs(mask: Any, height: int, width: int) -> Sequence[int]:
    rle = mask.get("segmentation", mask) if isinstance(mask, dict) else mask
    if not isinstance(rle, dict):
        raise ValueError("a mask that is no RLE")
    if list(rle["size"]) != [height, width]:
        raise ValueError(f"a mask of size {rle['size']}, height first")
    counts = rle["counts"]
    runs = decode_counts(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != height * width:
        raise ValueError("run lengths that do not add up to the photo's pixels")
    checked: list[int] = runs
    return checked
