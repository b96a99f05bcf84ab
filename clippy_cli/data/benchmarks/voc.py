"""PASCAL VOC 2012 segmentation, with background as a class (VOC21) or ignored (VOC20)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentationBenchmark, SegmentedImage
from clippy_cli.data.images import open_image, read_image
from clippy_cli.errors import ClippyError

IGNORE = 255
_CLASSES = 20
_VOCABULARY = resources.files("clippy_cli.data") / "vocabularies" / "voc.yaml"
_TREE = "VOCdevkit/VOC2012/{JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/val.txt}"
_HOME = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"


def open_voc(root: Path, *, background: bool) -> SegmentationBenchmark:
    """The photos that VOC 2012 lists as ``val``, below ``root``: VOC2012, VOCdevkit, or the folder around VOCdevkit.

    With ``background`` there are 21 classes and class 0 is background; without, class 0 is aeroplane and background
    pixels are ignored. ClippyError where the set, or a listed photo or mask, is missing.
    """
    folder = _find(root)
    listing = folder / "ImageSets" / "Segmentation" / "val.txt"
    try:
        names = tuple(line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{listing}: cannot be read ({error})", "Unpack the data set again.") from error
    if not names:
        raise ClippyError(f"{listing}: lists no photo", "Unpack the data set again.")
    for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        missing = [name for name in names if not (folder / kind / f"{name}.{suffix}").is_file()]
        if missing:
            raise ClippyError(
                f"{folder / kind}: {len(missing)} of {len(names)} files that {listing.name} lists are missing, "
                f"such as {missing[0]}.{suffix}",
                f"Unpack the data set again; it is at {_HOME}.",
            )
    return _Voc(folder, names, background=background)


class _Voc:
    ignore_index = IGNORE

    def __init__(self, folder: Path, names: tuple[str, ...], *, background: bool) -> None:
        words = yaml.safe_load(_VOCABULARY.read_text(encoding="utf-8"))
        things = tuple(BenchmarkClass(name, tuple(prompts)) for name, prompts in words["classes"].items())
        everything_else = BenchmarkClass("background", tuple(words["background"]))
        self.name = "VOC21" if background else "VOC20"
        self.classes = (everything_else, *things) if background else things
        self.background_index = 0 if background else None
        self.context: tuple[str, ...] = tuple(words["context"]) if background else ()
        self._folder = folder
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> SegmentedImage:
        name = self._names[index]
        image = read_image(self._folder / "JPEGImages" / f"{name}.jpg")
        path = self._folder / "SegmentationClass" / f"{name}.png"
        mask = _read_mask(path)
        if mask.shape != image.shape[:2]:
            sizes = " and ".join(f"{width}x{height}" for height, width in (mask.shape, image.shape[:2]))
            raise ClippyError(
                f"{path}: the mask and its photo differ in size ({sizes} pixels)", "Unpack the set again."
            )
        if self.background_index is None:
            mask = np.where(mask == 0, IGNORE, np.where(mask == IGNORE, IGNORE, mask - 1))
        return SegmentedImage(name, image, mask)


def _find(root: Path) -> Path:
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "ImageSets" / "Segmentation" / "val.txt").is_file():
            return folder
    there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) if root.is_dir() else "no such folder"
    raise ClippyError(
        f"No PASCAL VOC 2012 below {root}: looked for {_TREE}, found {there or 'an empty folder'}",
        f"Get VOCtrainval_11-May-2012.tar at {_HOME}, unpack it, and give the folder that holds VOCdevkit.",
    )


def _read_mask(path: Path) -> NDArray[np.int64]:
    """Class indices (H,W) of a palette PNG with VOC's own colours, or of a greyscale PNG that holds the indices."""
    try:
        with path.open("rb") as file, open_image(file, where=str(path), formats=("PNG",)) as image:
            if image.mode not in ("P", "L"):
                raise ClippyError(
                    f"{path}: a mask must hold class indices (palette or 8-bit greyscale), this one is {image.mode}",
                    "Take the set's own SegmentationClass/*.png; a viewer or editor may have saved colours instead.",
                )
            mask = np.array(image, dtype=np.int64)
            palette = image.getpalette() if image.mode == "P" else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ClippyError(f"{path}: cannot be read as a PNG mask ({error})", "Unpack the data set again.") from error
    values = np.unique(mask)
    strange = values[(values > _CLASSES) & (values != IGNORE)]
    if strange.size:
        raise ClippyError(f"{path}: mask value {strange[0]} is no VOC class (0 to 20, 255)", "Unpack the set again.")
    if palette is not None and any(palette[3 * value : 3 * value + 3] != _colour(value) for value in values.tolist()):
        raise ClippyError(
            f"{path}: its palette is not VOC's, so its indices cannot be trusted as classes",
            "Take the set's own SegmentationClass/*.png; an image editor may have sorted the palette.",
        )
    return mask


def _colour(index: int) -> list[int]:
    """VOC's colour of a class: three bits of the index at a time, lowest first, fill red, green, blue from the top."""
    return [sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
