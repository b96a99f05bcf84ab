"""Photos with one mask image each: where a data file says they lie, and what their values mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet, SegmentedImage, check_size
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.images import open_image, read_image
from clippy_cli.errors import ClippyError

MAX_VALUES = 1 << 16
UNKNOWN = -1
_AGAIN = "Unpack the data set again."
_LOSSLESS = ("PNG", "TIFF", "BMP")
_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow stretches grey of 2 and 4 bits over 0 to 255


def open_masks(name: str, spec: SetSpec, folder: Path) -> SegmentationSet:
    """The set below ``folder`` whose photos, masks, listing and values ``spec`` names.

    An image that is listed but missing fails when it is read; ClippyError here where the listing cannot be used, or no
    image is there with its mask. Mask values that are neither a class's nor ignored fail when read, too.
    """
    table = np.full(MAX_VALUES, UNKNOWN, np.int16)
    table[list(spec.ignore)] = IGNORE
    for index, values in enumerate(spec.values_of().values()):
        table[list(values)] = index
    return MaskSet(name, spec, folder, table, partial(read_values, palette=spec.palette))


class MaskSet(SegmentationSet):
    """A segmentation set below a folder.

    Args:
        table: (MAX_VALUES,) class index, ``IGNORE`` or ``UNKNOWN`` of each mask value.
        load: reads a mask file as (H,W) integers, ClippyError where it cannot.
    """

    def __init__(
        self,
        name: str,
        spec: SetSpec,
        folder: Path,
        table: NDArray[np.int16],
        load: Callable[[Path], NDArray[np.integer[Any]]],
    ) -> None:
        self.info = spec.info(name, folder)
        self.classes, self.background = spec.benchmark_classes(), spec.background_index()
        self.context = spec.context
        self._folder = folder
        self._table = table
        self._load = load
        if spec.listing is None:
            self._images, self._keys = _matching(folder, spec.images)
        else:
            self._keys = read_listing(folder / spec.listing)
            self._images = _first_used(folder, spec.images, self._keys)
        self._masks = _first_used(folder, spec.masks, self._keys)
        if not any(_is_file(self._image(key)) and _is_file(self._mask(key)) for key in self._keys):
            raise ClippyError(
                f"{folder}: none of {len(self._keys)} photos is there with its mask; looked for "
                f"{fill(self._images, self._keys[0])} with {fill(self._masks, self._keys[0])}, and so on",
                _AGAIN,
            )

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def files(self, index: int) -> tuple[Path, ...]:
        return self._image(self._keys[index]), self._mask(self._keys[index])

    def read(self, index: int) -> SegmentedImage:
        key = self._keys[index]
        image = read_image(self._image(key))
        path = self._mask(key)
        values = self._load(path)
        check_size(path, values, image)
        return SegmentedImage(key, image, look_up(values, self._table, where=str(path)))

    def _image(self, key: str) -> Path:
        return self._folder / fill(self._images, key)

    def _mask(self, key: str) -> Path:
        return self._folder / fill(self._masks, key)


def fill(pattern: str, key: str) -> str:
    """The path that ``pattern`` stands for with this key."""
    return pattern.replace("{}", key)


def find_keys(folder: Path, pattern: str) -> Iterator[str]:
    """Keys of the files below ``folder`` that ``pattern`` fits, in no order; hidden files and folders do not count."""
    before, _, after = pattern.partition("{}")
    beginning = before.rpartition("/")[2]
    top = folder / before.removesuffix(beginning)
    for path, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(path).relative_to(top).as_posix()
        for file in files:
            name = file if below == "." else f"{below}/{file}"
            fits = name.startswith(beginning) and name.endswith(after) and len(name) > len(beginning) + len(after)
            if fits and not file.startswith("."):
                yield name[len(beginning) : len(name) - len(after)]


def parse_listing(text: str, *, where: str) -> tuple[str, ...]:
    """The first word of each line that is not blank; ClippyError on a word that leaves the folder or comes twice."""
    keys: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        key = words[0]
        if "\\" in key or not key.isprintable() or set(key.split("/")) & {"", ".", ".."}:
            raise ClippyError(f"{where}:{number}: {key!r} does not name an image in the set's folder", _AGAIN)
        if key in keys:
            raise ClippyError(f"{where}:{number}: {key!r} is listed twice, in line {keys[key]} already", _AGAIN)
        keys[key] = number
    if not keys:
        raise ClippyError(f"{where}: lists no image", _AGAIN)
    return tuple(keys)


def read_listing(path: Path) -> tuple[str, ...]:
    """:func:`parse_listing` of a file; ClippyError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{path}: cannot be read ({error})", _AGAIN) from error
    return parse_listing(text, where=str(path))


def read_values(path: Path, *, palette: str | None = None) -> NDArray[np.integer[Any]]:
    """The integers (H,W) that a PNG, TIFF or BMP file of one channel holds: palette indices, or grey of 1 to 32 bits.

    With ``palette="voc"`` palette images must have VOC's colours. ClippyError on everything else.
    """
    try:
        with path.open("rb") as file, open_image(file, where=str(path), formats=_LOSSLESS) as image:
            if image.mode not in _ONE_CHANNEL or image.info.get("compression") == "jpeg":
                raise ClippyError(
                    f"{path}: a mask must hold class indices (palette or greyscale), this one is "
                    f"{image.mode if image.mode not in _ONE_CHANNEL else 'compressed with loss'}",
                    "Take the set's own mask files; a viewer or editor may have saved colours instead.",
                )
            step = _GREY_STEP.get(_raw_mode(image), 1)
            values = np.array(image)
            colours = image.getpalette() if image.mode == "P" else None
    except ClippyError:
        raise
    except FileNotFoundError:
        raise ClippyError(f"{path}: no such file, so this photo has no mask", _AGAIN) from None
    except UnidentifiedImageError:
        raise ClippyError(f"{path}: a mask must be a {', '.join(_LOSSLESS)} file, this one is not", _AGAIN) from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError, ... on bad data
        raise ClippyError(f"{path}: cannot be read as a mask ({error})", _AGAIN) from error
    if palette == "voc" and colours is not None:
        _require_voc_colours(path, values, colours)
    return values.astype(np.uint8) // step if values.dtype == bool or step > 1 else values


def look_up(values: NDArray[np.integer[Any]], table: NDArray[np.int16], *, where: str) -> NDArray[np.uint8]:
    """Class indices (H,W) uint8 of mask values (H,W); ClippyError names values that ``table`` does not know."""
    inside = values.min() >= 0 and values.max() < len(table)
    indices = table[values] if inside else np.full(values.shape, UNKNOWN, np.int16)
    unknown = indices == UNKNOWN
    if unknown.any():
        strange = np.unique(values[unknown] if inside else values[(values < 0) | (values >= len(table))])
        listed = ", ".join(map(str, strange[:5].tolist())) + (", ..." if strange.size > 5 else "")
        raise ClippyError(
            f"{where}: mask value {listed} is neither a class's nor ignored", "Check that this is the set's own mask."
        )
    return indices.astype(np.uint8)


def _matching(folder: Path, patterns: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The first pattern that any file fits, and the sorted keys of those files."""
    for pattern in patterns:
        keys = tuple(sorted(find_keys(folder, pattern)))
        if keys:
            return pattern, keys
    raise ClippyError(f"{folder}: no photo fits {' or '.join(patterns)}", _AGAIN)


def _first_used(folder: Path, patterns: Sequence[str], keys: Sequence[str]) -> str:
    """The first pattern that any key has a file for, else the first."""
    used = (pattern for pattern in patterns if any(_is_file(folder / fill(pattern, key)) for key in keys))
    return next(used, patterns[0])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", ())  # what a decoder gets, before the file is decoded
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _require_voc_colours(path: Path, indices: NDArray[np.integer[Any]], colours: list[int]) -> None:
    for index in np.flatnonzero(np.bincount(indices.ravel())).tolist():
        if colours[3 * index : 3 * index + 3] != _voc_colour(index):
            raise ClippyError(
                f"{path}: its palette is not VOC's, so its indices cannot be trusted as classes",
                "Take the set's own SegmentationClass/*.png; an image editor may have sorted the palette.",
            )


def _voc_colour(index: int) -> list[int]:
    """VOC's colour of a class: three bits of the index at a time, lowest first, fill red, green, blue from the top."""
    return [sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
