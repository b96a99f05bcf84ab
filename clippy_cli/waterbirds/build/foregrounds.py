"""Cut-out objects of two classes: the birds of CUB-200-2011, or any folder of photos and masks."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clippy_cli.checked_yaml import load_checked
from clippy_cli.data.benchmarks.base import check_size
from clippy_cli.data.benchmarks.masks import read_values
from clippy_cli.data.image_files import is_hidden, is_image_name, note_unread
from clippy_cli.data.images import open_image, read_image
from clippy_cli.errors import ClippyError
from clippy_cli.files import stays_below
from clippy_cli.notices import Notice, Notices
from clippy_cli.regular_files import is_file, open_regular, read_text
from clippy_cli.waterbirds.dataset import BIRDS

WATER_SPECIES = Path(str(resources.files("clippy_cli.waterbirds.build") / "water_species.yaml"))
CLASS_FILE = "classes.csv"

_PHOTO_SUFFIXES = (".jpg", ".png")
_TREES = """
  CUB_200_2011/images.txt, train_test_split.txt, images/<species>/*.jpg
  segmentations/<species>/*.png          (beside CUB_200_2011 or in it)
or
  classes.csv                            (columns key,class; two classes)
  images/<key>.jpg or .png
  masks/<key>.png                        (0 = background, everything else = object)"""
_OBTAIN = (
    "CUB-200-2011 and its segmentations are two archives, see vision.caltech.edu/datasets/cub_200_2011; unpack both "
    "into one folder, and name it."
)

Mask = NDArray[np.uint8] | NDArray[np.bool_]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Foreground:
    """An object in its photo.

    Attributes:
        key: the file that a composite of it is written to, relative to the set's folder; ends with ``.jpg``.
        image: (H,W,3) uint8 RGB.
        mask: (H,W), bool where the object is, or uint8 opacity from 0 (background) to 255 (object).
        class_index: 0 or 1.
        split: the part of the data that the object belongs to; None where that is free.
        notices: what was assumed when photo and mask were read.
    """

    key: str
    image: NDArray[np.uint8]
    mask: Mask
    class_index: int
    split: Split | None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class ForegroundFile:
    """Where a :class:`Foreground` comes from."""

    key: str
    image: Path
    mask: Path
    class_index: int
    split: Split | None


@dataclass(frozen=True)
class Foregrounds:
    """All objects of a folder.

    Attributes:
        classes: the names of class 0 and 1.
        graded: whether masks are opacities from 0 to 255, as which the published generator takes CUB's grey values.
        notices: what lies among the photos and is not used.
    """

    folder: Path
    classes: tuple[str, str]
    files: tuple[ForegroundFile, ...]
    graded: bool = False
    notices: Notices = field(default_factory=Notices, compare=False)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Foreground:
        """Object ``index``; ClippyError where photo or mask cannot be used, or the mask marks nothing."""
        file, notices = self.files[index], Notices()
        image = read_image(file.image, notices=notices)
        mask: Mask = _read_opacity(file.mask) if self.graded else read_values(file.mask, notices=notices) != 0
        check_size(file.mask, mask, image)
        if not mask.any():
            raise ClippyError(f"{file.mask}: the mask marks no pixel as object", "Mark the object, or leave it out.")
        return Foreground(file.key, image, mask, file.class_index, file.split, tuple(notices))


def open_foregrounds(root: Path) -> Foregrounds:
    """CUB-200-2011 where ``root`` is or holds it, else the photos and masks that ``classes.csv`` in ``root`` names.

    In your own folder, the classes are in alphabetical order. ClippyError says what was looked for, or which
    line of a table cannot be used.
    """
    for folder in (root, root / "CUB_200_2011"):
        if is_file(folder / "images.txt"):
            return _open_cub(folder)
    if is_file(root / CLASS_FILE):
        return _open_folder(root)
    try:
        there = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ClippyError(f"{root}: no such folder, or it cannot be read ({error.strerror})", _OBTAIN) from error
    raise ClippyError(
        f"{root}: holds no cut-out objects. Expected there:{_TREES}\nIt holds {', '.join(there[:8]) or 'nothing'}"
        f"{', ...' if len(there) > 8 else ''}",
        _OBTAIN,
    )


class _WaterSpecies(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    water: tuple[str, ...]


def is_water_bird(species: str, words: Sequence[str]) -> bool:
    """Whether a species' name holds one of ``words``, upper and lower case being one: the published rule."""
    return any(word.lower() in species.lower() for word in words)


def water_words() -> tuple[str, ...]:
    """The words that make a species a water bird, from ``water_species.yaml``."""
    return load_checked(WATER_SPECIES, _WaterSpecies, what="list of water birds").water


def _open_cub(folder: Path) -> Foregrounds:
    masks = next((path for path in (folder / "segmentations", folder.parent / "segmentations") if path.is_dir()), None)
    if masks is None:
        raise ClippyError(
            f"{folder}: the birds have no masks; looked for the folder segmentations in it and beside it",
            "They are an archive of their own, segmentations.tgz; unpack it into the folder that holds CUB_200_2011.",
        )
    words = water_words()
    names = _numbered(folder / "images.txt")
    training = _numbered(folder / "train_test_split.txt")
    files: list[ForegroundFile] = []
    for number, (line, name) in names.items():
        where = f"{folder / 'images.txt'}:{line}"
        if not stays_below(name) or name.count("/") != 1 or not name.endswith(".jpg"):
            raise ClippyError(f"{where}: {name!r} is no <species>/<photo>.jpg", "Unpack CUB-200-2011 again.")
        _, code = training.get(number, (0, "nothing"))
        if code not in ("0", "1"):
            raise ClippyError(
                f"{folder / 'train_test_split.txt'}: image {number} must have 0 or 1, it has {code[:40]}",
                "Unpack CUB-200-2011 again.",
            )
        mask = masks / f"{name.removesuffix('.jpg')}.png"
        water = is_water_bird(name.split("/")[0], words)
        files.append(
            ForegroundFile(name, folder / "images" / name, mask, int(water), "train" if code == "1" else "test")
        )
    return _checked(Foregrounds(folder, BIRDS, tuple(files), graded=True), folder / "images.txt")


def _numbered(path: Path) -> dict[str, tuple[int, str]]:
    """Image number -> line and what stands behind the number, of CUB's ``<number> <text>`` files."""
    found: dict[str, tuple[int, str]] = {}
    for line, text in enumerate(_read_text(path).splitlines(), start=1):
        number, _, rest = text.strip().partition(" ")
        if number in found or not number.isdigit() or not rest:
            problem = "is there twice" if number in found else "is not a number followed by text"
            raise ClippyError(f"{path}:{line}: {text[:60]!r} {problem}", "Unpack CUB-200-2011 again.")
        found[number] = (line, rest)
    return found


def _open_folder(root: Path) -> Foregrounds:
    path = root / CLASS_FILE
    try:
        rows = list(csv.reader(_read_text(path).splitlines()))
    except csv.Error as error:
        raise ClippyError(
            f"{path}: cannot be read as a table ({error})", "Write one object a line: key,class."
        ) from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if header[:2] != ["key", "class"]:
        raise ClippyError(f"{path}:1: must be key,class, it is {','.join(header)[:60]!r}", "Write that line on top.")
    named: list[tuple[str, str]] = []
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        cells = [cell.strip() for cell in row]
        if len(cells) < 2 or not cells[1] or not stays_below(cells[0]):
            raise ClippyError(f"{path}:{line}: {','.join(row)[:60]!r} is no key and class", "One object a line.")
        named.append((cells[0], cells[1]))
    classes = sorted({name for _, name in named})
    if len(classes) != 2:
        raise ClippyError(
            f"{path}: there must be two classes, there are {len(classes)}: {', '.join(classes[:5]) or 'none'}",
            "Leave out the objects of all others.",
        )
    files = tuple(
        ForegroundFile(f"{key}.jpg", _photo(root, key), root / "masks" / f"{key}.png", classes.index(name), None)
        for key, name in named
    )
    notices = Notices()
    _note_unlisted(root / "images", {file.image for file in files}, notices)
    return _checked(Foregrounds(root, (classes[0], classes[1]), files, notices=notices), path)


def _note_unlisted(folder: Path, listed: Collection[Path], notices: Notices) -> None:
    """Count photos that the table does not name, and files of types that are not read."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path in listed or is_hidden(path.name):
            continue
        if is_image_name(path.name):
            notices.ignored("photo", f"not in {CLASS_FILE}, or beside one of the same key", path.name)
        else:
            note_unread(path, path.name, notices)


def _photo(root: Path, key: str) -> Path:
    tried = [root / "images" / f"{key}{suffix}" for suffix in _PHOTO_SUFFIXES]
    return next((path for path in tried if is_file(path)), tried[0])


def _checked(foregrounds: Foregrounds, path: Path) -> Foregrounds:
    """ClippyError where two objects would be written to one file, or a class has none."""
    times = Counter(file.key.casefold() for file in foregrounds.files)
    twice = [file.key for file in foregrounds.files if times[file.key.casefold()] > 1]
    if twice:
        raise ClippyError(f"{path}: {twice[0].removesuffix('.jpg')!r} is there twice", "Give each object its own name.")
    for index, name in enumerate(foregrounds.classes):
        if not any(file.class_index == index for file in foregrounds.files):
            raise ClippyError(f"{path}: lists no {name}, and both classes are needed", "Unpack the whole data set.")
    return foregrounds


def _read_opacity(path: Path) -> NDArray[np.uint8]:
    """(H,W) grey values of a mask file of any mode; ClippyError where it cannot be read."""
    try:
        with open_regular(path) as file, open_image(file, where=str(path)) as image:
            return np.array(image.convert("L"), dtype=np.uint8)
    except ClippyError:
        raise
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError, ... on bad data
        raise ClippyError(f"{path}: cannot be read as a mask ({error})", "Unpack the segmentations again.") from error


def _read_text(path: Path) -> str:
    try:
        return read_text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "Unpack the data set again.") from error
