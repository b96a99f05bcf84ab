"""Waterbirds: birds pasted on backgrounds that agree with them or not, in the layout of its authors and of WILDS.

Layout, codes and the order of the groups are those of kohpangwei/group_DRO (data/cub_dataset.py), described in Sagawa
et al. 2020, appendix C.1. WILDS publishes the same files in another folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from clippy_cli.data.benchmarks.base import SetInfo
from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError
from clippy_cli.files import stays_below
from clippy_cli.notices import Notice, Notices
from clippy_cli.regular_files import is_file, read_bytes

BIRDS = ("land bird", "water bird")
PLACES = ("land", "water")
SPLITS = ("train", "val", "test")
METADATA = "metadata.csv"
BUILD_FILE = "build.json"  # which only sets that were built here have
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
PUBLISHED_FOLDERS = ("waterbird_complete95_forest2water2", "waterbirds_v1.0")
PUBLISHED_SIZES = {"train": 4795, "val": 1199, "test": 5794}

_NEEDED = ("img_filename", "y", "split", "place")
_TREE = f"""
  {PUBLISHED_FOLDERS[0]}/
    {METADATA}                ({", ".join(COLUMNS)})
    001.Black_footed_Albatross/*.jpg
    ..."""
_OBTAIN = (
    "Get waterbird_complete95_forest2water2.tar.gz by the README of github.com/kohpangwei/group_DRO, or the set of "
    "WILDS (waterbirds_v1.0); or make one with `clippy waterbirds build`."
)

_MEND = "Unpack the set again; one of your own is made again by `clippy waterbirds build` into an empty folder."

GroupCounts = tuple[int, int, int, int]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlacedBird:
    """An image (H,W,3) uint8 RGB, the index of its bird in :data:`BIRDS` and of its place in :data:`PLACES`.

    ``notices`` say what was assumed when it was read.
    """

    key: str
    image: NDArray[np.uint8]
    bird: int
    place: int
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class _Row:
    name: str
    bird: int
    place: int

    @property
    def group(self) -> int:
        return 2 * self.bird + self.place


class WaterbirdsSet:
    """One split of a set.

    Attributes:
        birds, places: what the two classes and the two places are called; your own sets have their own names.
        counts: images of this split in each group, 2 * bird + place.
        train_counts: the same of the training split, by which the literature weights its average.
    """

    def __init__(self, folder: Path, split: str, info: SetInfo, rows: Mapping[str, tuple[_Row, ...]]) -> None:
        self.info = info
        self.birds, self.places = _names(folder)
        self.counts = _count(rows[split])
        self.train_counts = _count(rows["train"])
        self._folder = folder
        self._rows = rows[split]

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        """The image's file, relative to the set's folder."""
        return self._rows[index].name

    def group(self, index: int) -> int:
        """2 * bird + place, from 0 to 3."""
        return self._rows[index].group

    def read(self, index: int) -> PlacedBird:
        """Image ``index``; ClippyError where it is missing or damaged."""
        row, notices = self._rows[index], Notices()
        image = read_image(self._folder / row.name, notices=notices)
        return PlacedBird(row.name, image, row.bird, row.place, tuple(notices))


def open_waterbirds(root: Path, split: str) -> WaterbirdsSet:
    """The split ("train", "val" or "test") of the set in ``root``, or in the folder below it that it is unpacked to.

    ``info.complete`` is the size of the published split, for the published set only. ClippyError where there is no set,
    its table cannot be used (with the line), or the split is empty.
    """
    if split not in SPLITS:
        raise ClippyError(f"{split!r} is no split of Waterbirds", f"Choose among {', '.join(SPLITS)}.")
    folder = _locate(root)
    content = _read_bytes(folder / METADATA)
    rows = _read_rows(content, folder / METADATA)
    if not rows[split]:
        there = ", ".join(f"{len(of_split)} {name}" for name, of_split in rows.items())
        raise ClippyError(
            f"{folder / METADATA}: the {split} split is empty; the table has {there}", "Choose another split."
        )
    total, own = sum(map(len, rows.values())), (folder / BUILD_FILE).is_file()
    published = not own and (folder.name in PUBLISHED_FOLDERS or total == sum(PUBLISHED_SIZES.values()))
    info = SetInfo(
        name="waterbirds" if published else folder.resolve().name,
        title=f"{'Waterbirds' if published else f'{folder.resolve().name}, objects on backgrounds'}, {split} split",
        folder=folder,
        complete=PUBLISHED_SIZES[split] if published else None,
        catalogued=published,
        digest=hashlib.sha256(content).hexdigest()[:16],
    )
    _log.info("set %s: %d images of its %s split below %s", info.name, len(rows[split]), split, folder)
    return WaterbirdsSet(folder, split, info, rows)


def _locate(root: Path) -> Path:
    tried = [root, *(root / name for name in (*PUBLISHED_FOLDERS, "waterbirds"))]
    for folder in tried:
        if is_file(folder / METADATA):
            return folder
    if is_file(root / BUILD_FILE):
        raise ClippyError(
            f"{root}: this set is not finished, it has {BUILD_FILE} but no {METADATA}",
            "Run the same `clippy waterbirds build` again; it goes on where it stopped.",
        )
    try:
        there = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ClippyError(f"{root}: no such folder, or it cannot be read ({error.strerror})", _OBTAIN) from error
    raise ClippyError(
        f"Waterbirds is not below {root}. Expected there:{_TREE}\n"
        f"Looked for {METADATA} in {', '.join(map(str, tried))}; {root} holds {', '.join(there[:8]) or 'nothing'}"
        f"{', ...' if len(there) > 8 else ''}",
        _OBTAIN,
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise ClippyError(f"{path}: cannot be read ({error.strerror})", "Check its permissions.") from error


def _read_rows(content: bytes, path: Path) -> dict[str, tuple[_Row, ...]]:
    """The rows of each split, in the table's order."""
    rows: dict[str, list[_Row]] = {split: [] for split in SPLITS}
    lines: dict[str, int] = {}
    for line, entry in _entries(content, path):
        name = entry["img_filename"]
        if not stays_below(name):
            raise ClippyError(f"{path}:{line}: {name!r} does not name an image in the set's folder", _MEND)
        if name in lines:
            raise ClippyError(f"{path}:{line}: {name!r} is there twice, in line {lines[name]} already", _MEND)
        lines[name] = line
        code = {
            column: _code(entry[column], limit, f"{path}:{line}: {column}")
            for column, limit in (("y", 2), ("split", len(SPLITS)), ("place", 2))
        }
        rows[SPLITS[code["split"]]].append(_Row(name, code["y"], code["place"]))
    return {split: tuple(of_split) for split, of_split in rows.items()}


def _entries(content: bytes, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and the needed columns of each row."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        there = [str(name) for name in reader.fieldnames or ()]
        missing = [name for name in _NEEDED if name not in there]
        if missing:
            raise ClippyError(
                f"{path}: no column {', '.join(missing)}; the first line holds "
                f"{', '.join(repr(name[:40]) for name in there) or 'nothing'}",
                f"The columns are {', '.join(COLUMNS)}.",
            )
        for entry in reader:
            yield reader.line_num, {name: entry[name] or "" for name in _NEEDED}
    except UnicodeDecodeError as error:
        raise ClippyError(f"{path}: cannot be read as UTF-8 text ({error})", _MEND) from error
    except csv.Error as error:
        raise ClippyError(f"{path}:{reader.line_num}: {error}", _MEND) from error


def _code(text: str, limit: int, where: str) -> int:
    codes = [str(code) for code in range(limit)]
    if text.strip() not in codes:
        raise ClippyError(f"{where} must be {' or '.join(codes)}, it is {text[:40]!r}", _MEND)
    return int(text)


def _count(rows: tuple[_Row, ...]) -> GroupCounts:
    groups = Counter(row.group for row in rows)
    return groups[0], groups[1], groups[2], groups[3]


class _Built(BaseModel):
    """The part of a built set's plan that says what its codes mean."""

    classes: tuple[str, str]
    places: tuple[str, str]


def _names(folder: Path) -> tuple[tuple[str, str], tuple[str, str]]:
    path = folder / BUILD_FILE
    if not is_file(path):
        return BIRDS, PLACES
    try:
        built = _Built.model_validate_json(_read_bytes(path))
    except ValidationError as error:
        raise ClippyError(
            f"{path}: does not say what the classes and places are called ({error.errors()[0]['msg']})",
            "Build the set again in an empty folder.",
        ) from error
    return built.classes, built.places
