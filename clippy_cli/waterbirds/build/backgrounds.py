"""Backgrounds of two kinds of place: categories of Places365, or two of your own folders."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from clippy_cli.data.image_files import LOOKED_FOR, is_hidden, is_image_name, is_system_folder, note_unread
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.waterbirds.dataset import PLACES

# dataset_scripts/generate_waterbirds.py of kohpangwei/group_DRO, in the order of PLACES.
CATEGORIES = (("bamboo_forest", "forest/broadleaf"), ("ocean", "lake/natural"))
_TOPS = (".", "data_large", "data_large_standard", "data_256", "data_256_standard")  # as Places' archives unpack
_TREES = """
  b/bamboo_forest, f/forest/broadleaf    (land; the layout of Places365, or without the letters)
  o/ocean, l/lake/natural                (water)
or two folders of images with names of your own, such as
  land
  water"""
_OBTAIN = "The training images of Places365-Standard are at places2.csail.mit.edu; only these four categories are used."


@dataclass(frozen=True)
class Backgrounds:
    """Image files of two places.

    Attributes:
        folder: where the files' names start.
        places: the names of place 0 and 1.
        files: of each place, sorted, with ``/`` between folders.
        notices: what lies among them and is not read.
    """

    folder: Path
    places: tuple[str, str]
    files: tuple[tuple[str, ...], tuple[str, ...]]
    notices: Notices = field(default_factory=Notices, compare=False)


def open_backgrounds(root: Path) -> Backgrounds:
    """The four categories of Places that Waterbirds uses, else the two folders in ``root``, numbered by the alphabet.

    ClippyError where there is neither, or a place has no image.
    """
    for top in (root / name for name in _TOPS):
        found = {name: _category(top, name) for names in CATEGORIES for name in names}
        missing = [name for name, folder in found.items() if folder is None]
        if not missing:
            land, water = ([folder for name in names if (folder := found[name])] for names in CATEGORIES)
            return _listed(top, PLACES, (land, water))
        if any(folder is not None and len(folder.parts[0]) == 1 for folder in found.values()):
            raise ClippyError(f"{top}: Places' categories {', '.join(missing)} are missing", _OBTAIN)
    try:
        folders = sorted(
            path.name
            for path in root.iterdir()
            if path.is_dir() and not is_hidden(path.name) and not is_system_folder(path.name)
        )
    except OSError as error:
        raise ClippyError(f"{root}: no such folder, or it cannot be read ({error.strerror})", _OBTAIN) from error
    if len(folders) != 2:
        raise ClippyError(
            f"{root}: holds no backgrounds. Expected there:{_TREES}\n"
            f"It holds {len(folders)} folders: {', '.join(folders[:8]) or 'none'}",
            _OBTAIN,
        )
    return _listed(root, (folders[0], folders[1]), ([Path(folders[0])], [Path(folders[1])]))


def _category(top: Path, name: str) -> Path | None:
    """Where in ``top`` a category lies: below its first letter, by itself, or with its parts joined to one name."""
    ways = (f"{name[0]}/{name}", name, name.replace("/", "_"), name.replace("/", "-"))
    return next((Path(way) for way in ways if (top / way).is_dir()), None)


def _listed(top: Path, places: tuple[str, str], folders: tuple[list[Path], list[Path]]) -> Backgrounds:
    notices = Notices()
    first, second = (
        tuple(sorted(name for folder in of_place for name in _images(top, folder, notices))) for of_place in folders
    )
    for place, of_place, names in zip(places, folders, (first, second), strict=True):
        if not names:
            raise ClippyError(
                f"{top}: no image of {place} in {', '.join(map(str, of_place))}",
                LOOKED_FOR,
            )
    return Backgrounds(top, places, (first, second), notices)


def _images(top: Path, folder: Path, notices: Notices) -> list[str]:
    """The images in ``folder`` and below, as names from ``top`` on; what is not read is counted.

    Hidden files and folders of a system do not count.
    """
    found: list[str] = []
    for path, folders, files in os.walk(top / folder):
        folders[:] = [name for name in folders if not is_hidden(name) and not is_system_folder(name)]
        below = Path(path).relative_to(top)
        for name in files:
            if is_image_name(name):
                found.append((below / name).as_posix())
            else:
                note_unread(Path(path) / name, (below / name).as_posix(), notices)
    return found
