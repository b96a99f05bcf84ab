"""What a TIFF file says of its values and Pillow does not apply (TIFF 6.0, sections 3, 21 and 22)."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from clippy_cli.errors import ClippyError

_STRIP_OFFSETS, _STRIP_BYTES = 273, 279
_PHOTOMETRIC, _SAMPLE_FORMAT, _MAX_SAMPLE_VALUE = 262, 339, 281
_WHITE_IS_ZERO, _YCC = 0, 6
_SIGNED = 2
_OF_12_BITS = 4095


def refuse_signed_bytes(image: Image.Image, where: str) -> None:
    """ClippyError for 8-bit values with a sign, which Pillow reads as if they had none."""
    if image.mode == "L" and _first(image, _SAMPLE_FORMAT) == _SIGNED:
        raise ClippyError(
            f"{where}: signed 8-bit values, from -128 to 127, have no agreed meaning as brightness",
            "Save it with unsigned values, from 0 to 255.",
        )


def is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white in an image of one deep channel; Pillow inverts those of up to 8 bits only."""
    return image.mode.startswith("I") and _first(image, _PHOTOMETRIC) == _WHITE_IS_ZERO


def highest_value(image: Image.Image, raw: str) -> int | None:
    """The highest value that an image of one deep channel can have, where its file says so."""
    if raw == "I;12":
        return _OF_12_BITS
    if image.format == "PPM" and image.mode == "I":
        return 65535  # Pillow has scaled from the maximum in the header
    return _first(image, _MAX_SAMPLE_VALUE)


def plain_ycc(image: Image.Image, data: bytes) -> Image.Image | None:
    """RGB of a TIFF file whose luminance and chrominance are not compressed, which Pillow cannot read; else None."""
    tiles = getattr(image, "tile", ())
    if _first(image, _PHOTOMETRIC) != _YCC or not tiles or tiles[0][0] != "raw":
        return None
    tags = image.tag_v2  # type: ignore[attr-defined]
    offsets, sizes = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_BYTES, ())
    if sum(sizes) == 3 * image.width * image.height:  # not subsampled, whatever the file says
        pixels = b"".join(data[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True))
        return Image.frombytes("YCbCr", image.size, pixels).convert("RGB")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if bgr is None else Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _first(image: Image.Image, tag: int) -> int | None:
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None
