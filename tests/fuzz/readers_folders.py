"""Readers of photos, masks and folders for the fuzzers: each takes a file and raises ClippyError or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from clippy_cli.data.benchmarks.class_folders import open_class_folders
from clippy_cli.data.benchmarks.masks import MAX_VALUES, MaskReader, look_up
from clippy_cli.data.benchmarks.patterns import PatternFiles, read_listing
from clippy_cli.data.image_files import find_images
from clippy_cli.data.images import read_image, read_stored, turn_upright
from clippy_cli.data.pixels import profile_name
from clippy_cli.notices import Notices


def read_photo(path: Path) -> None:
    """Any image file, upright and as stored."""
    notices = Notices()
    upright = read_image(path, notices=notices)
    assert np.array_equal(turn_upright(*read_stored(path)), upright)
    _say(notices)


def read_mask(path: Path) -> None:
    """A mask of values 0 to 9, whose palette is the set's."""
    table = np.full(MAX_VALUES, -1, np.int16)
    table[:10] = np.arange(10)
    notices, reader = Notices(), MaskReader(table, None)
    reader.look_at([path], notices)
    look_up(reader(path, notices), table, where=str(path))
    _say(notices)


def read_list(path: Path) -> None:
    """A listing of the files beside it."""
    notices = Notices()
    read_listing(path, PatternFiles(path.parent, ("{}.jpg", "{}.png")), notices)
    _say(notices)


def read_folder(path: Path) -> None:
    """The folder of a file, and the one above it as class folders."""
    notices = Notices()
    find_images([str(path.parent), str(path.parent / "**")], notices=notices)
    notices.update(open_class_folders("set", None, path.parent.parent).notices)
    _say(notices)


def read_profile(path: Path) -> None:
    """An ICC profile."""
    profile_name(path.read_bytes()).encode()


READERS: dict[str, Callable[[Path], None]] = {
    "photo": read_photo,
    "mask": read_mask,
    "listing": read_list,
    "folder": read_folder,
    "profile": read_profile,
}


def _say(notices: Notices) -> None:
    for notice in notices:
        str(notice).encode()
        str(notice.record()).encode()
