"""Images in: any common file to an upright (H,W,3) uint8 RGB array, and the sizes that models take."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clippy_cli.data.image_files import IMAGE_SUFFIXES, LOOKED_FOR, refuse_other_content
from clippy_cli.data.pixels import note_what_is_unused, raw_mode, silence_decoders, to_rgb
from clippy_cli.data.tiff import plain_ycc, refuse_signed_bytes
from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command
from clippy_cli.notices import Notices
from clippy_cli.regular_files import open_regular

__all__ = ["IMAGE_SUFFIXES"]
MAX_PIXELS = 178_956_970  # where Pillow itself speaks of a decompression bomb; half a gigabyte as RGB
MAX_ASPECT = 100
LONGEST_EXACT = 2048
MAX_FILE_BYTES = 1 << 30

_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# warnings.catch_warnings swaps process-wide state, so two threads must not do it at once.
_WARNING_FILTERS = threading.Lock()


silence_decoders()


def _renew_lock() -> None:
    global _WARNING_FILTERS
    _WARNING_FILTERS = threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that held it does not exist in the child
    os.register_at_fork(after_in_child=_renew_lock)


def read_image(path: Path, *, notices: Notices | None = None) -> NDArray[np.uint8]:
    """Read one image file as (H,W,3) uint8 RGB, upright by its EXIF orientation.

    Greyscale is repeated over the channels, transparency lies on white, 16-bit values are scaled to 8 bits, color
    profiles are not applied, and of an animation the first frame counts; ``notices`` get what was assumed. ClippyError
    where the file is missing, damaged, truncated, empty, larger than ``MAX_PIXELS`` or narrower than one to
    ``MAX_ASPECT``.
    """
    return decode_image(read_image_bytes(path), where=str(path), notices=notices)


def read_stored(path: Path, *, notices: Notices | None = None) -> tuple[NDArray[np.uint8], int]:
    """As :func:`read_image`, but the pixels as they are stored, and the EXIF orientation 1-8 they are to be seen in."""
    rgb, turn = _decode(read_image_bytes(path), str(path), notices)
    return np.array(rgb, dtype=np.uint8), turn


def turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(H,W,3) as stored -> as it is to be seen, by its EXIF orientation 1-8."""
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn), dtype=np.uint8)


def orientation_hides(path: Path) -> bool:
    """Whether a photo in a file is turned by its EXIF orientation without a change of its size: squares, half turns."""
    try:
        with open_regular(path) as file, open_image(file, where=str(path)) as image:
            turn = orientation(image)
            return turn != 1 and (turn < 5 or image.height == image.width)
    except Exception:  # reading the photo says what is wrong
        return False


def as_pixels(photo: object, *, where: str, notices: Notices | None = None) -> NDArray[np.uint8]:
    """A photo in any of the forms that Python callers have -> (H,W,3) uint8 RGB.

    Args:
        photo: a path (read as by :func:`read_image`); a Pillow image (turned and flattened as a file is); a NumPy array
            (H,W,3) uint8 RGB; a torch tensor (3,H,W), uint8 or floating point in [0, 1].
        where: what errors call it.
        notices: get what was assumed of a file or a Pillow image.

    Raises:
        ClippyError: any other type, shape, dtype or range, and whatever :func:`read_image` refuses.
    """
    if isinstance(photo, str | os.PathLike):
        return read_image(Path(photo), notices=notices)
    if isinstance(photo, Image.Image):
        with guard_decoding(where):
            check_shape(*photo.size, where=where)
            return _upright(
                to_rgb(photo, where=where, notices=Notices() if notices is None else notices), orientation(photo)
            )
    if isinstance(photo, Tensor):
        pixels = _tensor_pixels(photo, where)
    elif isinstance(photo, np.ndarray):
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
            raise ClippyError(
                f"{where}: an array of shape {photo.shape} and type {photo.dtype} is not a photo",
                "Pass (H,W,3) uint8 RGB, such as numpy.asarray(image.convert('RGB')).",
            )
        pixels = np.array(photo, order="C")  # a copy of our own: the caller's may be read-only, or change later
    else:
        raise ClippyError(
            f"{where}: a {type(photo).__name__} is not a photo",
            "Pass a path, a Pillow image, a NumPy array (H,W,3) uint8, or a tensor (3,H,W).",
        )
    check_shape(pixels.shape[1], pixels.shape[0], where=where)
    return pixels


def read_image_bytes(path: Path) -> bytes:
    """The content of an image file, not decoded; ClippyError where it is missing, no file, or over one GiB."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ClippyError(f"{path}: a folder without images", LOOKED_FOR)
        if not path.is_file():
            raise ClippyError(f"{path}: not a regular file", "Name an image file.")
        if size > MAX_FILE_BYTES:
            raise ClippyError(f"{path}: {size / 1e9:.1f} GB is too large for one image", "Save a smaller copy.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ClippyError(f"{path}: no such file", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "Check the path and its permissions.") from error


def decode_image(data: bytes, *, where: str, notices: Notices | None = None) -> NDArray[np.uint8]:
    """Decode an encoded image held in memory as :func:`read_image` does; ``where`` names it in errors and notices."""
    return _upright(*_decode(data, where, notices))


def _decode(data: bytes, where: str, notices: Notices | None) -> tuple[Image.Image, int]:
    """The RGB image as stored, and its EXIF orientation 1-8."""
    if not data:
        raise ClippyError(f"{where}: the file is empty", "Copy or download it again.")
    notices = Notices() if notices is None else notices
    if is_heic(data):
        _read_heic(where)
    refuse_other_content(data, where)
    with guard_decoding(where), io.BytesIO(data) as stream, open_image(stream, where=where) as image:
        note_what_is_unused(image, where, notices)
        refuse_signed_bytes(image, where)
        ycc = plain_ycc(image, data)
        if ycc is not None:
            return ycc, orientation(image)
        raw = raw_mode(image)
        image.load()
        return to_rgb(image, where=where, notices=notices, raw=raw, data=data), orientation(image)


def is_heic(data: bytes) -> bool:
    """Whether an image is HEIC or HEIF by its first bytes (ISO 23008-12, brands of the box ``ftyp``)."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def _read_heic(where: str) -> None:
    """Let Pillow read HEIC; ClippyError where the package that does so is missing."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ClippyError(
            f"{where}: HEIC is read by the package pillow-heif, which is not installed",
            f"Run {install_command('heic')}, or save the photo as JPEG.",
        ) from None
    register_heif_opener()


@contextmanager
def guard_decoding(where: str) -> Iterator[None]:
    """Whatever Pillow raises on bad data becomes a ClippyError that names ``where``."""
    hint = "Open it in an image viewer; if it looks right there, save it again as PNG or JPEG."
    try:
        yield
    except ClippyError:
        raise
    except UnidentifiedImageError:
        raise ClippyError(f"{where}: not an image in a format that Pillow reads", hint) from None
    except Image.DecompressionBombError:
        raise _too_large(where, "its header announces more pixels than Pillow accepts") from None
    except MemoryError:
        raise _too_large(where, "not enough memory to decode it") from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError, ... on bad data
        raise ClippyError(f"{where}: damaged or truncated image ({error})", hint) from error


def image_format(data: bytes) -> str | None:
    """``jpeg``, ``png`` or ``webp`` by an image's first bytes; None for any other format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


def open_image(stream: BinaryIO, *, where: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Pillow's lazily decoded image; ClippyError for a size that is too large, and no warnings of Pillow."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(stream, formats=formats)
    check_shape(*image.size, where=where)
    return image


def check_shape(width: int, height: int, *, where: str) -> None:
    """ClippyError for sides in pixels that no photo has: empty, over ``MAX_PIXELS``, narrower than ``MAX_ASPECT``."""
    if width < 1 or height < 1:
        raise ClippyError(f"{where}: the image is empty ({width}x{height} pixels)", "Export it again.")
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width}x{height} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ClippyError(
            f"{where}: {width}x{height} pixels is narrower than 1:{MAX_ASPECT}", "Cut it into pieces and try those."
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation 1-8; 1 where the tag is absent, out of range, or the EXIF block is damaged."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = image.getexif().get(_ORIENTATION_TAG, 1)
        except Exception:  # a photo with a broken EXIF block is still a photo
            return 1
    return value if value in _UPRIGHT else 1


def dense_size(height: int, width: int, short_side: int, patch_size: int) -> tuple[int, int]:
    """(H,W) in pixels nearest to ``short_side`` at the image's aspect, both multiples of the patch, at least one."""
    scale = short_side / min(height, width)
    sides = (max(1, int(side * scale / patch_size + 0.5)) * patch_size for side in (height, width))
    return next(sides), next(sides)


def exact_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(H,W) in pixels with that short side at the image's aspect, not rounded to the patch, 2048 pixels at most.

    As mmcv's ``imrescale`` to a scale of (2048, short side), by which mmsegmentation's test pipelines resize.
    """
    scale = min(LONGEST_EXACT / max(height, width), short_side / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize_bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> (height,width,3) uint8, bilinear without antialiasing: OpenCV's, as mmcv resizes."""
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def resize_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> (height,width,3) uint8 by Pillow's antialiased bicubic filter."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.uint8)


def centre_crop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H,W,3) -> the (S,S,3) square in its middle, S the shorter side."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def to_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack B images (H,W,3) of one size into a contiguous (B,3,H,W) uint8 tensor."""
    batch = torch.from_numpy(np.stack(images))  # (B,H,W,3)
    return batch.permute(0, 3, 1, 2).contiguous()


def _too_large(where: str, what: str) -> ClippyError:
    return ClippyError(
        f"{where}: the image is too large: {what}; the limit is {MAX_PIXELS / 1e6:.0f} million",
        "Save a smaller copy, for example with `magick INPUT -resize 4000x OUTPUT`.",
    )


def _upright(rgb: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """A Pillow image in RGB -> (H,W,3) uint8, turned as its EXIF orientation says."""
    turn = _UPRIGHT.get(orientation)
    return np.array(rgb if turn is None else rgb.transpose(turn), dtype=np.uint8)


def _tensor_pixels(photo: Tensor, where: str) -> NDArray[np.uint8]:
    hint = "Pass (3,H,W): uint8, or floating point in [0, 1] before any normalization."
    if photo.ndim != 3 or photo.shape[0] != 3:
        raise ClippyError(f"{where}: a tensor of shape {tuple(photo.shape)} is not a photo", hint)
    values = photo.detach().cpu()
    if values.dtype != torch.uint8:
        if not values.is_floating_point():
            raise ClippyError(f"{where}: a tensor of type {values.dtype} is not a photo", hint)
        if values.numel() and not (float(values.min()) >= 0 and float(values.max()) <= 1):
            low, high = float(values.min()), float(values.max())
            raise ClippyError(f"{where}: tensor values from {low:g} to {high:g} are not in [0, 1]", hint)
        values = (values.float() * 255).round().to(torch.uint8)
    return np.array(values.permute(1, 2, 0).numpy(), order="C")  # (3,H,W) -> (H,W,3)
