"""Photos with one mask image each: where a data file says they lie, and what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet, SegmentedImage, check_size, read_photo_for
from clippy_cli.data.benchmarks.listings import SetFiles, read_listing
from clippy_cli.data.benchmarks.mask_signs import UNKNOWN, Seen, guess, note_signs, voc_color
from clippy_cli.data.benchmarks.patterns import AGAIN, PatternFiles, note_lonely, note_strays
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.images import open_image, orientation
from clippy_cli.data.pixels import raw_mode
from clippy_cli.errors import ClippyError, encodable
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_file, open_regular

MAX_VALUES = 1 << 16
_LOSSLESS = ("PNG", "TIFF", "BMP")
_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")
_OTHER_SUFFIXES = (".PNG", ".png", ".TIF", ".tif", ".TIFF", ".tiff", ".bmp", ".BMP", ".jpg")
_LOOKED_AT = 8  # masks that are looked at when a set is opened
_KINDS = {"LA": "LA, greyscale with transparency", "RGBA": "RGBA, colors with transparency", "RGB": "RGB, colors"}
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow stretches grey of 2 and 4 bits over 0 to 255


def open_masks(name: str, spec: SetSpec, folder: Path) -> SegmentationSet:
    """The set below ``folder`` whose photos, masks, listing and values ``spec`` names.

    An image that is listed but missing fails when it is read; ClippyError here where the listing cannot be used, or no
    image is there with its mask. Mask values that are neither a class's nor ignored fail when read, too. What a few
    masks tell of how all are encoded is looked at here, so that ``notices`` say it before the work.
    """
    table = np.full(MAX_VALUES, UNKNOWN, np.int16)
    table[list(spec.ignore)] = IGNORE
    for index, values in enumerate(spec.values_of().values()):
        table[list(values)] = index
    reader = MaskReader(table, spec)
    opened = MaskSet(name, spec, folder, table, reader)
    reader.look_at(opened.some_masks(_LOOKED_AT), opened.notices)
    return opened


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
        load: Callable[[Path, Notices], NDArray[np.integer[Any]]],
    ) -> None:
        self.info = spec.info(name, folder)
        self.classes, self.background = spec.benchmark_classes(), spec.background_index()
        self.context = spec.context
        self._table = table
        self._load = load
        self._images, self._masks = PatternFiles(folder, spec.images), PatternFiles(folder, spec.masks)
        if spec.listing is None:
            self._keys = self._images.keys(self.notices)
            skipped = note_strays(folder, self._images, self._masks, self.notices)
            note_lonely(folder, skipped.union(self._keys), spec.masks, self.notices)
            self._masks.note_doubles(self._keys, self.notices)
        else:
            files = SetFiles(self._images, self._masks)
            self._keys = read_listing(folder / spec.listing, files, self.notices)
        if not any(self._images.has(key) and self._masks.has(key) for key in self._keys):
            raise ClippyError(
                f"{folder}: none of {len(self._keys)} photos is there with its mask; looked for "
                f"{self._images.path(self._keys[0])} with {self._masks.path(self._keys[0])}, and so on",
                AGAIN,
            )

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return encodable(self._keys[index])

    def files(self, index: int) -> tuple[Path, ...]:
        return self._images.path(self._keys[index]), self._masks.path(self._keys[index])

    def read(self, index: int) -> SegmentedImage:
        key, notices = self._keys[index], Notices()
        path = self._masks.path(key)
        values = self._load(path, notices)
        image = read_photo_for(self._images.path(key), [values], self.info.exif, notices)
        check_size(path, values, image)
        indices = look_up(values, self._table, where=str(path))
        if indices.min() == IGNORE:
            notices.assumed("mask", "all its values are ignored, so the image counts nowhere", str(path))
        return SegmentedImage(self.key(index), image, indices, tuple(notices))

    def some_masks(self, count: int) -> list[Path]:
        """Up to ``count`` masks that are there, spread over the set."""
        step = -(-len(self._keys) // count)
        return [path for path in map(self._masks.path, self._keys[::step]) if is_file(path)]


class MaskReader:
    """Reads mask files of one set, and compares their palettes: with VOC's, or with that of the first mask looked at.

    Args:
        table: (MAX_VALUES,) class index, ``IGNORE`` or ``UNKNOWN`` of each mask value.
        spec: of the set; its ``palette`` is ``voc``, ``any`` for no comparison, or None for the first mask's.
    """

    def __init__(self, table: NDArray[np.int16], spec: SetSpec) -> None:
        self._table, self._spec, self._palette = table, spec, spec.palette
        self._is_class = (table != UNKNOWN) & (table != IGNORE)
        self._first: tuple[Path, Colors] | None = None

    def __call__(self, path: Path, notices: Notices) -> NDArray[np.integer[Any]]:
        """The values (H,W) of a mask; ClippyError where its palette shows that they are not what other masks mean."""
        mask = read_mask(path, notices=notices)
        if mask.colors is not None and self._palette == "voc":
            _require_voc_colors(path, mask.values, mask.colors)
        elif mask.colors is not None and self._palette is None and self._first is not None:
            self._compare(path, mask.values, mask.colors, notices)
        return mask.values

    def look_at(self, paths: Sequence[Path], notices: Notices) -> None:
        """Take the first palette as the set's, and note what these masks tell of the encoding of all."""
        seen: list[Seen] = []
        for path in paths:
            try:
                mask = read_mask(path)
            except ClippyError:
                continue  # it fails when its image is read
            values = np.unique(mask.values).tolist()
            seen.append(Seen(path, mask.values, tuple(values)))
            if mask.colors is not None and self._palette is None and _has_moved_voc_colors(values, mask.colors):
                notices.assumed(
                    "mask",
                    "its palette has VOC's colors at other values; values count, not colors",
                    str(path),
                    hint="Take the set's own masks if a tool has sorted the palette; else write `palette: any` in the "
                    "set's data file.",
                )
            if mask.colors is not None and self._first is None:
                self._first = path, mask.colors
            if mask.one_bit and len(self._spec.classes) > 2:
                notices.assumed("mask", "1 bit a pixel: black is value 0, white is value 1", str(path))
        note_signs(seen, self._spec, self._table, notices)

    def _compare(self, path: Path, values: NDArray[np.integer[Any]], colors: Colors, notices: Notices) -> None:
        assert self._first is not None
        first, theirs = self._first
        if colors == theirs:
            return
        meant = np.flatnonzero(self._is_class[:256]).tolist()
        used = set(np.unique(values).tolist())
        differing = [value for value in meant if value in used and _color(colors, value) != _color(theirs, value)]
        for value in differing:
            color = _color(colors, value)
            other = [index for index in meant if _color(theirs, index) == color]
            if color is not None and len(other) == 1 and sum(_color(colors, index) == color for index in meant) == 1:
                raise ClippyError(
                    f"{path}: color {color} is value {value} in its palette and {other[0]} in that of {first}, so the "
                    "values of one of them are not the classes' numbers",
                    "Take the set's own masks, a tool may have sorted these palettes. If values count whatever their "
                    "colors, write `palette: any` in the set's data file.",
                )
        if differing:
            notices.assumed("mask", f"its palette is not that of {first}; values count, not colors", str(path))


Colors = tuple[int, ...]  # R, G, B of index 0, 1, ...


@dataclass(frozen=True)
class Mask:
    """What a mask file holds: values (H,W), its palette where it has one, whether a pixel has one bit."""

    values: NDArray[np.integer[Any]]
    colors: Colors | None
    one_bit: bool


def read_values(path: Path, *, notices: Notices | None = None) -> NDArray[np.integer[Any]]:
    """The values of :func:`read_mask`."""
    return read_mask(path, notices=notices).values


def read_mask(path: Path, *, notices: Notices | None = None) -> Mask:
    """A PNG, TIFF or BMP file of one channel: palette indices, or grey of 1 to 32 bits; ClippyError on any other."""
    notices = Notices() if notices is None else notices
    try:
        with open_regular(path) as file, open_image(file, where=str(path), formats=_LOSSLESS) as image:
            if image.mode not in _ONE_CHANNEL or image.info.get("compression") == "jpeg":
                kind = "compressed with loss" if image.mode in _ONE_CHANNEL else _KINDS.get(image.mode, image.mode)
                raise ClippyError(
                    f"{path}: a mask must hold class indices (palette or greyscale), this one is {kind}",
                    "Take the set's own mask files; a viewer or editor may have saved colours instead.",
                )
            if getattr(image, "is_animated", False):
                notices.assumed("mask", "holds several frames or pages, the first one is used", str(path))
            step, one_bit = _GREY_STEP.get(raw_mode(image), 1), image.mode == "1"
            values = np.array(image)
            colors = image.getpalette() if image.mode == "P" else None
            if orientation(image) != 1:
                notices.assumed("mask", "has an EXIF orientation, which is not applied", str(path))
    except ClippyError:
        raise
    except FileNotFoundError:
        like = [name for name in map(path.with_suffix, _OTHER_SUFFIXES) if is_file(name)]
        hint = f"There is {like[0].name}: add a pattern for it to `masks` in the set's data file." if like else AGAIN
        raise ClippyError(f"{path}: no such file, so this photo has no mask", hint) from None
    except UnidentifiedImageError:
        hint = "Save masks as PNG, their values the classes' numbers; JPEG and lossy WebP change them."
        raise ClippyError(f"{path}: a mask must be a {', '.join(_LOSSLESS)} file, this one is not", hint) from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError, ... on bad data
        raise ClippyError(f"{path}: cannot be read as a mask ({error})", AGAIN) from error
    if values.dtype == bool or step > 1:
        values = values.astype(np.uint8) // step
    return Mask(values, None if colors is None else tuple(colors), one_bit)


def look_up(values: NDArray[np.integer[Any]], table: NDArray[np.int16], *, where: str) -> NDArray[np.uint8]:
    """Class indices (H,W) uint8 of mask values (H,W); ClippyError names values that ``table`` does not know."""
    inside = values.min() >= 0 and values.max() < len(table)
    indices = table[values] if inside else np.full(values.shape, UNKNOWN, np.int16)
    unknown = indices == UNKNOWN
    if unknown.any():
        strange = np.unique(values[unknown] if inside else values[(values < 0) | (values >= len(table))])
        listed = ", ".join(map(str, strange[:5].tolist())) + (", ..." if strange.size > 5 else "")
        raise ClippyError(
            f"{where}: mask value {listed} is neither a class's nor ignored",
            f"{guess(strange, table)}Check that this is the set's own mask.",
        )
    return indices.astype(np.uint8)


def _color(colors: Colors, index: int) -> Colors | None:
    return colors[3 * index : 3 * index + 3] or None


def _require_voc_colors(path: Path, indices: NDArray[np.integer[Any]], colors: Colors) -> None:
    for index in np.flatnonzero(np.bincount(indices.ravel())).tolist():
        if _color(colors, index) != voc_color(index):
            raise ClippyError(
                f"{path}: its palette is not VOC's, so its indices cannot be trusted as classes",
                "Take the set's own SegmentationClass/*.png; an image editor may have sorted the palette.",
            )


def _has_moved_voc_colors(values: Sequence[int], colors: Colors) -> bool:
    """Whether all these values have colors of VOC, and not all of them their own."""
    known = [voc_color(index) for index in range(256)]
    used = [_color(colors, value) for value in values]
    return all(color in known for color in used) and any(
        color != known[value] for value, color in zip(values, used, strict=True)
    )
