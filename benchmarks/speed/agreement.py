"""How far two runs of one command agree: pixels of masks, best labels of photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

Image.MAX_IMAGE_PIXELS = None  # what is opened here was written a moment ago

Codes = NDArray[np.uint8]


def of_masks(one: Path, other: Path) -> str:
    """Share of equal pixels in the palette PNGs of two folders; each photo's pixels count."""
    return _pixels(one, other, "*_mask.png", _png)


def of_documents(one: Path, other: Path) -> str:
    """As :func:`of_masks`, of the RLE in JSON documents."""
    return _pixels(one, other, "[!.]*.json", _document)


def of_best_labels(one: Path, other: Path) -> str:
    """Share of photos whose first label is the same in two files of ``clippy classify --csv``."""
    best = [_best(path) for path in (one, other)]
    same = sum(best[0][image] == best[1].get(image) for image in best[0])
    return f"{100 * same / len(best[0]):.2f} % of photos"


def equal_pixels(pairs: list[tuple[Codes, Codes]]) -> str:
    """The share of equal pixels as the table has it."""
    same = sum(int((one == other).sum()) for one, other in pairs)
    return f"{100 * same / sum(one.size for one, _ in pairs):.3f} % of pixels"


def _pixels(one: Path, other: Path, pattern: str, read: Callable[[Path], Codes]) -> str:
    names = sorted(path.name for path in one.glob(pattern))
    if not names or names != sorted(path.name for path in other.glob(pattern)):
        return "other files"
    return equal_pixels([(read(one / name), read(other / name)) for name in names])


def _png(path: Path) -> Codes:
    with Image.open(path) as image:
        return np.asarray(image)


def _document(path: Path) -> Codes:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    codes = np.zeros((document["height"], document["width"]), np.uint8)
    for region in document["regions"]:
        height, width = region["rle"]["size"]
        inside = coco.decode({"size": [height, width], "counts": region["rle"]["counts"].encode()})
        codes[inside.astype(bool)] = region["code"]
    return codes


def _best(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["image"]: row["label"] for row in csv.DictReader(file) if row["rank"] == "1"}
