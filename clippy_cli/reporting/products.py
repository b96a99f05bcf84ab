"""Pictures, JSON and CSV as files, and the legend of a label map."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from clippy_cli.errors import ClippyError, encodable
from clippy_cli.files import json_text, write_whole
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.reporting.overlay import LegendItem
from clippy_cli.reporting.palette import colour

PNG_LEVEL = 3  # of zlib: masks take a third of the time of Pillow's 6 and a quarter more space, a few kB in all
_QUICK = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # not in OpenCV 4.9, which takes SUB
    _QUICK += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]


def save_picture(path: Path, picture: Image.Image) -> Path:
    """Write a picture as PNG, quickly: a tenth larger than the smallest form, in an eighth of its time."""
    return write_whole(path, lambda stream: stream.write(encoded_png(picture)))


def encoded_png(picture: Image.Image) -> bytes:
    """The bytes of a PNG. RGB goes by OpenCV, whose level 1 with the filter UP takes half the time of Pillow's."""
    if picture.mode != "RGB":
        content = io.BytesIO()
        picture.save(content, format="PNG", compress_level=PNG_LEVEL)
        return content.getvalue()
    pixels = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
    written, encoded = cv2.imencode(".png", pixels, _QUICK)
    if not written:
        raise ClippyError(f"A picture of {picture.width}x{picture.height} pixels cannot be encoded as PNG")
    return encoded.tobytes()


def save_json(path: Path, document: dict[str, Any]) -> Path:
    """Write a JSON document; NaN is refused, since JSON has none."""
    text = json_text(document) + "\n"
    return write_whole(path, lambda stream: stream.write(text.encode()))


def save_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as comma-separated UTF-8 under a line of column names."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_whole(path, lambda stream: stream.write(encodable(text.getvalue()).encode()))


def beside(base: Path, ending: str) -> Path:
    """``out/dog.v2`` and ``.json`` -> ``out/dog.v2.json``."""
    return base.with_name(base.name + ending)


def legend_items(label_map: LabelMap, names: Sequence[str]) -> list[LegendItem]:
    """The names that have pixels, largest share first."""
    present = [code for code in range(1, len(label_map.pixels)) if label_map.pixels[code] > 0]
    present.sort(key=lambda code: -int(label_map.pixels[code]))
    return [
        LegendItem(colour(code), f"{names[code - 1]} {rounded_percent(label_map.shares[code])}") for code in present
    ]


def rounded_percent(share: float) -> str:
    """A fraction in [0, 1] as text; what is there but would round to nothing shows as ``<1 %``."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
