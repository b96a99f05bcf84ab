"""Why a mask is as it is: the prompts, the views, and what each patch is most similar to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clippy_cli.inference.features import window_starts
from clippy_cli.inference.views import Views
from clippy_cli.reporting.overlay import tint
from clippy_cli.reporting.products import save_json, save_picture

BEST_TEXTS = 3
_TILE = 320  # pixels of a heat map's longer side
_COLUMNS = 3
_MOST_MAPS = 24
_CAPTION = 22


@dataclass(frozen=True)
class Explanation:
    """What a segmentation was made of.

    Attributes:
        prompts: the filled templates of each of the K texts.
        entries: the entry (label or background word) that each text belongs to.
        similarity: (K,h,w) float32 cosine in [-1, 1] of each patch with each text, before synonyms are merged.
        probabilities: (E,h,w) float32 in [0, 1], softmax over the entries at the model's logit scale.
        entry_names: E names.
        views: what was looked at, one text a view.
        patch_size: side of a patch in pixels of the resized photo.
    """

    prompts: dict[str, tuple[str, ...]]
    entries: tuple[str, ...]
    similarity: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    entry_names: tuple[str, ...]
    views: tuple[str, ...]
    patch_size: int


def describe_views(views: Views, grid: tuple[int, ...], patch_size: int) -> tuple[str, ...]:
    """One line a view: its size in pixels, whether it is mirrored, and how many windows it is cut into."""
    lines = []
    for scale in views.scales:
        height, width = (round(side * patch_size * scale / max(views.scales)) for side in grid)
        cut = ""
        if views.window is not None:
            stride = views.stride or views.window
            count = len(window_starts(height, views.window, stride)) * len(window_starts(width, views.window, stride))
            cut = f", {count} windows of {views.window} pixels at stride {stride}"
        lines.append(f"about {width}x{height} pixels (scale {scale:g}){cut}")
        if views.flip:
            lines.append(f"the same, mirrored{cut}")
    return tuple(lines)


def write_debug(
    folder: Path, explanation: Explanation, image: NDArray[np.uint8], mask: NDArray[np.int16]
) -> list[Path]:
    """Write ``debug.json`` and ``similarity.png`` into ``folder``, made if missing, and return their paths.

    The JSON holds prompts, views, and for each patch (row by row) the three texts of the highest cosine, with entry,
    cosine and the entry's probability. The picture shows the mask, then the cosine of up to 24 texts as heat maps on
    one scale, which their captions name.
    """
    document = {
        "views": list(explanation.views),
        "patch_size": explanation.patch_size,
        "grid": {"rows": explanation.similarity.shape[1], "columns": explanation.similarity.shape[2]},
        "prompts": {text: list(filled) for text, filled in explanation.prompts.items()},
        "best_texts": best_texts(explanation),
    }
    return [
        save_json(folder / "debug.json", document),
        save_picture(folder / "similarity.png", draw_similarity(explanation, image, mask)),
    ]


def best_texts(explanation: Explanation) -> list[list[list[dict[str, object]]]]:
    """For each row and column of the patch grid up to three texts, the highest cosine first."""
    count, rows, columns = explanation.similarity.shape
    order = np.argsort(-explanation.similarity, axis=0, kind="stable")[: min(BEST_TEXTS, count)]  # (3,h,w)
    texts = list(explanation.prompts)
    place = {name: index for index, name in enumerate(explanation.entry_names)}

    def describe(text: int, row: int, column: int) -> dict[str, object]:
        entry = explanation.entries[text]
        return {
            "text": texts[text],
            "entry": entry,
            "cosine": round(float(explanation.similarity[text, row, column]), 4),
            "probability": round(float(explanation.probabilities[place[entry], row, column]), 4),
        }

    return [
        [[describe(int(text), row, column) for text in order[:, row, column]] for column in range(columns)]
        for row in range(rows)
    ]


def draw_similarity(explanation: Explanation, image: NDArray[np.uint8], mask: NDArray[np.int16]) -> Image.Image:
    """The tinted photo and a heat map a text, in rows of three, each with its caption."""
    height, width = image.shape[:2]
    scale = _TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    low, high = float(explanation.similarity.min()), float(explanation.similarity.max())
    tiles = [(Image.fromarray(tint(image, mask)).resize(size), "the mask")]
    for text, cosines in list(zip(explanation.prompts, explanation.similarity, strict=True))[:_MOST_MAPS]:
        tiles.append((_heat_map(cosines, low, high).resize(size, Image.Resampling.BILINEAR), _caption(text, cosines)))
    return _sheet(tiles, size)


def _caption(text: str, cosines: NDArray[np.float32]) -> str:
    return f"{text}: {float(cosines.min()):.2f} to {float(cosines.max()):.2f}"


def _heat_map(values: NDArray[np.float32], low: float, high: float) -> Image.Image:
    """Dark blue at ``low`` over red to yellow at ``high``."""
    level = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    stops = np.array([[20, 20, 60], [120, 30, 110], [220, 80, 60], [250, 230, 120]], np.float32)
    channels = [np.interp(level, np.linspace(0, 1, len(stops)), stops[:, channel]) for channel in range(3)]
    return Image.fromarray(np.rint(np.stack(channels, axis=-1)).astype(np.uint8))


def _sheet(tiles: Sequence[tuple[Image.Image, str]], size: tuple[int, int]) -> Image.Image:
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = size[0] + 8, size[1] + _CAPTION + 8
    sheet = Image.new("RGB", (columns * width + 8, rows * height + 8), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (picture, caption) in enumerate(tiles):
        x, y = 8 + number % columns * width, 8 + number // columns * height
        sheet.paste(picture, (x, y))
        draw.text((x, y + size[1] + 3), caption, fill=(32, 32, 32), font=font)
    return sheet
