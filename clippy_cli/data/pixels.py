"""A decoded image of any kind -> 8-bit RGB: the range of its values, and what is assumed where files do not say."""

from __future__ import annotations

import ctypes
import struct

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.tiff import highest_value, is_inverted
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

_DEPTHS = (8, 10, 12, 14)  # bits of scanners and cameras whose values come in 16-bit files
_DEEP_LIMIT = 1 << 14  # a 16-bit image with no value as high as this is taken for one of fewer bits
_OVERSHOOT = 0.05  # of the range, by which resampling and sharpening may leave it
_MIN_FLOAT_OF_255 = 16.0  # float values up to 255 whose maximum is lower might as well be of another range
_FRAMED = ("GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF")
_SRGB = ("c2", "sgry")  # descriptions of small sRGB profiles that do not say so
_ALL_CLEAR = "every pixel is transparent; its colors are used as if it were not"
_GAMMAS = (0.4, 0.5)  # of a PNG file whose values are encoded as sRGB's, or close to it


def silence_decoders() -> None:
    """Let libtiff and OpenCV report nothing by themselves: they write to the process's stderr, whoever decodes.

    Damage still raises, since Pillow looks at return values. Where libtiff is built into Pillow, it is left as it is.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    except (OSError, AttributeError, TypeError):
        return


def raw_mode(image: Image.Image) -> str:
    """What a decoder gets, such as ``RGB;16B``; empty once the file is decoded."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def note_what_is_unused(image: Image.Image, where: str, notices: Notices) -> None:
    """Count further frames, and a color profile that is not sRGB; an image that is not decoded yet."""
    if image.format in _FRAMED and _has_frames(image):
        notices.assumed("image", "holds several frames or pages, the first one is used", where)
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if image.mode == "LAB":
        return  # converted, with its own white point
    if isinstance(gamma, float) and not profile and not _GAMMAS[0] < gamma < _GAMMAS[1]:
        notices.ignored("color profile", f"gamma {gamma:g}; values are read as sRGB", where)
    if isinstance(profile, bytes) and b"sRGB" not in profile:
        name = profile_name(profile)
        if "srgb" not in name.lower() and name.lower() not in _SRGB:
            notices.ignored("color profile", f"{name or 'without a name'}; values are read as sRGB", where)
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        notices.assumed("image", "CMYK without Adobe's marker, values are read as inverted", where)


def to_rgb(image: Image.Image, *, where: str, notices: Notices, raw: str = "", data: bytes = b"") -> Image.Image:
    """Any Pillow mode -> RGB with full 8-bit range, transparency over white.

    Args:
        image: decoded.
        where: what errors and notices call it.
        notices: get what was assumed of the range of its values.
        raw: :func:`raw_mode` before it was decoded; Pillow keeps only the high bytes of 16-bit color.
        data: the file, to read such color again where its high bytes do not suffice.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey(image, where, notices, raw)).convert("RGB")
    if ";16" in raw and data and _needs_low_bytes(image):
        deep = _deep_color(data, where, notices)
        if deep is not None:
            return Image.fromarray(deep)
    if image.has_transparency_data:
        return _on_white(image, where, notices)
    return image.convert("RGB")


def scale_to_8_bit(
    values: NDArray[np.generic], *, where: str, notices: Notices, declared: int | None = None
) -> NDArray[np.uint8]:
    """Integers of 16 or 32 bits, or floats in [0,1] or [0,255] -> uint8 of the same shape, by scaling.

    Integers below 2^14 are taken for 8, 10, 12 or 14 bits, whichever hold the maximum, unless the file has ``declared``
    its highest value. Floats that leave their range by up to 5 % of it are clipped. Both are noted. ClippyError where
    values have no agreed meaning.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise ClippyError(
            f"{where}: {wrong:,} of {values.size:,} pixel values are NaN or inf",
            "Such values stand for missing data: replace them, and save it as an 8-bit or 16-bit image.",
        )
    low, high = float(values.min()), float(values.max())
    found = f"{where}: {low:g} to {high:g}"
    limit: float | None
    if values.dtype.kind == "f":
        limit = _float_limit(low, high)
        if limit is not None and not (low >= 0 and high <= limit):
            notices.assumed("image", f"float values just outside [0, {limit:g}], which are clipped", found)
    elif low < 0:
        limit = None
    elif declared is not None and declared >= high:
        limit = float(declared)
    elif 0 < high < _DEEP_LIMIT:
        bits = next(bits for bits in _DEPTHS if high < 1 << bits)
        limit = float((1 << bits) - 1)
        notices.assumed(
            "image", f"no value beyond {bits} bits in a file of 16 or more, brightness is 0 to {limit:.0f}", found
        )
    elif high <= 65535:
        limit = 65535.0
    else:
        limit = 4294967295.0
        notices.assumed("image", "32-bit values, brightness is 0 to 4294967295", found)
    if limit is None:
        raise ClippyError(
            f"{where}: pixel values from {low:g} to {high:g} have no agreed meaning as brightness",
            "Save it as an 8-bit or 16-bit image, or as floats in [0, 1].",
        )
    scaled = np.asarray(values, dtype=np.float64) * (255.0 / limit)
    eight: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return eight


def profile_name(profile: bytes) -> str:
    """The description in an ICC profile (ICC.1:2010, 9.2.41 and 10.13; type ``desc`` of version 2); empty without."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for entry in range(min(count, 100)):
            tag, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * entry)
            if tag != b"desc":
                continue
            body = profile[offset : offset + size]
            if body[:4] == b"mluc":
                length, start = struct.unpack_from(">II", body, 20)
                return body[start : start + length].decode("utf-16-be", "replace").strip("\0 ")
            (length,) = struct.unpack_from(">I", body, 8)
            return body[12 : 12 + length].decode("latin-1").strip("\0 ")
    except struct.error:
        pass
    return ""


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame does not lose the first
        return True


def _float_limit(low: float, high: float) -> float | None:
    for limit in (1.0, 255.0):
        inside = low >= -_OVERSHOOT * limit and high <= (1 + _OVERSHOOT) * limit
        if inside and (limit == 1.0 or high >= _MIN_FLOAT_OF_255):
            return limit
    return None


def _on_white(image: Image.Image, where: str, notices: Notices) -> Image.Image:
    """An image with transparency over white; one that is transparent everywhere by its colors alone."""
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    colors, highest = rgba.convert("RGB"), rgba.getextrema()[3][1]  # type: ignore[misc]
    if highest == 0:
        notices.assumed("image", _ALL_CLEAR, where)
        return colors
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if flat.getextrema() == ((255, 255),) * 3 and rgba.getextrema()[3][0] < 255:  # type: ignore[misc]
        reason = "white on a transparent ground, which is taken as white, so it is blank"
        notices.assumed("image", reason, where, hint="Save it on a background of another color.")
    return flat


def _grey(image: Image.Image, where: str, notices: Notices, raw: str) -> NDArray[np.uint8]:
    """(H,W) uint8 of an image of one deep channel; its transparent value is white."""
    values = np.asarray(image)
    scaled = scale_to_8_bit(values, where=where, notices=notices, declared=highest_value(image, raw))
    if is_inverted(image):
        scaled = 255 - scaled
    key = image.info.get("transparency")
    if isinstance(key, int):
        scaled[values == key] = 255
    return scaled


def _needs_low_bytes(image: Image.Image) -> bool:
    """Whether the high bytes of 16-bit color are too low to be a photo's, or a color of 16 bits stands for none."""
    if isinstance(image.info.get("transparency"), tuple):
        return True
    bands = image.getextrema()
    colors = bands[:3] if len(bands) >= 3 else bands[:1]
    return max(high for _, high in colors) < _DEEP_LIMIT >> 8  # type: ignore[misc]


def _deep_color(data: bytes, where: str, notices: Notices) -> NDArray[np.uint8] | None:
    """(H,W,3) uint8 of a file of 16 bits a channel, transparency over white; None where OpenCV does not read it so."""
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (3, 4):
        return None
    rgb = scale_to_8_bit(values[..., 2::-1], where=where, notices=notices)
    if values.shape[2] == 3:
        return rgb
    alpha = values[..., 3:].astype(np.float64)
    if not alpha.any():
        notices.assumed("image", _ALL_CLEAR, where)
        return rgb
    opacity = alpha / float(alpha.max())
    on_white: NDArray[np.uint8] = np.rint(255 + opacity * (rgb.astype(np.float64) - 255)).astype(np.uint8)
    return on_white
