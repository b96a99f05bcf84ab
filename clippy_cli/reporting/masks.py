"""Label maps in forms that other tools read: palette PNG, COCO RLE, cutouts, score maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.reporting.files import safe_name
from clippy_cli.reporting.palette import MAX_LABELS, colour, palette
from clippy_cli.reporting.products import PNG_LEVEL


def check_label_count(count: int) -> None:
    """ClippyError where ``count`` labels do not fit a palette PNG."""
    if count > MAX_LABELS:
        raise ClippyError(
            f"{count} labels do not fit a palette image, which holds {MAX_LABELS}",
            "Name fewer labels, or leave overlay and mask out with --save json,scores.",
        )


def write_mask(path: Path, codes: NDArray[np.int16]) -> Path:
    """Write (H,W) codes as a palette PNG of the same size: index 0 unlabelled, 1 to L the labels."""
    return write_whole(path, partial(mask_image(codes).save, format="PNG", compress_level=PNG_LEVEL))


def mask_image(codes: NDArray[np.int16]) -> Image.Image:
    """(H,W) codes as a palette image; ClippyError where there are more than a palette holds."""
    check_label_count(int(codes.max(initial=0)))
    image = Image.fromarray(codes.astype(np.uint8))
    image.putpalette(palette().tobytes())
    return image


def write_cutouts(folder: Path, image: NDArray[np.uint8], codes: NDArray[np.int16], names: Sequence[str]) -> list[Path]:
    """Write one PNG of the image's own size for each name that has pixels, transparent wherever it has none."""
    written, taken = [], set[str]()
    for code, name in enumerate(names, start=1):
        inside = codes == code
        file_name = safe_name(name, taken)
        if not inside.any():
            continue
        cutout = cut_out(image, inside)
        written.append(
            write_whole(folder / f"{file_name}.png", partial(cutout.save, format="PNG", compress_level=PNG_LEVEL))
        )
    return written


def cut_out(image: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Image.Image:
    """(H,W,3) photo, (H,W) bool -> RGBA of the same size, transparent black outside."""
    alpha = inside.astype(np.uint8) * 255
    return Image.fromarray(np.dstack((np.where(inside[..., None], image, 0), alpha)))  # (H,W,4)


def write_scores(path: Path, similarity: NDArray[np.float32], entries: Sequence[str], height: int, width: int) -> Path:
    """Write ``similarity`` (E,h,w) float16, ``entries`` (E,) strings and ``image_size`` (height, width) as npz."""
    arrays = {
        "similarity": similarity.astype(np.float16),
        "entries": np.array(entries, dtype=np.str_),
        "image_size": np.array((height, width), dtype=np.int64),
    }

    def write(stream: BinaryIO) -> None:
        np.savez_compressed(stream, allow_pickle=False, **arrays)

    return write_whole(path, write)


def region_records(label_map: LabelMap, names: Sequence[str], *, scored: bool) -> list[dict[str, Any]]:
    """One JSON-ready record for each name, in order of codes from 1.

    ``share`` of pixels in [0, 1], mean ``score`` where ``scored``, ``box`` [x, y, width, height] in pixels, COCO
    ``rle``. Where the name has no pixel, score and box are null and the RLE is empty.
    """
    height, width = label_map.codes.shape
    columns_first = np.asfortranarray(label_map.codes)  # COCO counts runs down the columns
    nothing = encode_rle(np.zeros((height, width), np.uint8, order="F"))
    shares = label_map.shares
    records = []
    for code, name in enumerate(names, start=1):
        present = code < len(shares) and label_map.pixels[code] > 0
        rle = encode_rle((columns_first == code).view(np.uint8)) if present else nothing
        record = {
            "name": name,
            "code": code,
            "colour": "#{:02x}{:02x}{:02x}".format(*colour(code)),
            "share": round(float(shares[code]), 6) if present else 0.0,
        }
        if scored:
            record["score"] = round(float(label_map.scores[code]), 6) if present else None
        records.append({**record, "box": rle_box(rle) if present else None, "rle": rle})
    return records


def encode_rle(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """(H,W) zeros and ones, Fortran order -> COCO's compressed run lengths, ``counts`` as ASCII text."""
    from pycocotools import mask as coco

    encoded = coco.encode(mask)
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def rle_box(rle: dict[str, Any]) -> list[int]:
    """The smallest box [x, y, width, height] in pixels around an RLE mask."""
    from pycocotools import mask as coco

    return [int(side) for side in coco.toBbox({"size": rle["size"], "counts": rle["counts"].encode("ascii")})]


def coco_document(file_name: str, record: dict[str, Any], areas: Sequence[int]) -> dict[str, Any]:
    """Size and ``regions`` of :func:`region_records`, pixels of each -> a COCO data set of one photo.

    Category and annotation ids are codes; labels without a pixel have no annotation.
    """
    return {
        "images": [{"id": 1, "file_name": file_name, "width": record["width"], "height": record["height"]}],
        "categories": [{"id": region["code"], "name": region["name"]} for region in record["regions"]],
        "annotations": [
            {
                "id": region["code"],
                "image_id": 1,
                "category_id": region["code"],
                "segmentation": region["rle"],
                "area": int(area),
                "bbox": region["box"],
                "iscrowd": 0,
            }
            for region, area in zip(record["regions"], areas, strict=True)
            if area
        ],
    }
