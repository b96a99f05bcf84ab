"""The image paths of a table: in the spelling that leads to a file, and those that lead to none."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from clippy_cli.errors import ClippyError
from clippy_cli.notices import MOST_EXAMPLES, Notices

_PROBES = 1000
_THREADS = 8  # hide the latency of a network file system
_LONGEST_SHOWN = 300  # characters of a path
_UNUSUAL = re.compile(r"[\\\\%]|^\./|^file:|//|/\./")
_URL = re.compile(r"\w{2,10}://")
_DOWNLOAD = "Photos are not downloaded: fetch them first, with img2dataset for example."


def is_file(path: str | Path) -> bool:
    """Whether there is a file; what cannot be a path leads to none."""
    try:
        return os.path.isfile(path)  # noqa: PTH113 (millions of them)
    except (OSError, ValueError):  # too long, or a NUL
        return False


def path_as_meant(root: Path, name: str, notices: Notices) -> str:
    """A name that leads to no file as written, in the spelling that does: ``\\``, ``%20``, ``file:``, accents."""
    if name.isascii() and not _UNUSUAL.search(name):
        return name
    if not _URL.match(name):
        name = re.sub(r"/(?:\.?/)+", "/", re.sub(r"^(?:\./+)+", "", name)) or name
    accents = "path in another Unicode normal form"
    spellings = [
        (name.replace("\\", "/"), "Windows path, read with /"),
        (unquote(re.sub(r"^file:(?://)?(?=/)", "", name)), "percent-encoded path, decoded"),
        (normalize("NFC", name), accents),
        (normalize("NFD", name), accents),
    ]
    others = [(other, reason) for other, reason in spellings if other != name]
    if others and not is_file(root / name):
        for other, reason in others:
            if is_file(root / other):
                notices.assumed("row", reason, name)
                return other
    return name


def count_missing(table: Path, root: Path, images: Sequence[str], notices: Notices) -> int:
    """How many of ``images`` are no files, which ``notices`` get; ClippyError where all of those tried are none.

    At first 1000 are tried, spread evenly, and all of them only if one of these is missing.
    """
    tried = images[:: max(1, len(images) // _PROBES)]
    missing = _missing(root, tried)
    if len(missing) == len(tried):
        raise ClippyError(
            f"{table}: none of {len(tried):,} images tried exists, such as {_shown(root, missing[0])}",
            _where_instead(root, missing),
        )
    if missing and len(tried) < len(images):
        missing = _missing(root, images)
    if missing:
        notices.skipped(
            "image",
            "no such file",
            *missing[:MOST_EXAMPLES],
            hint=_spelled_otherwise(root, missing),
            count=len(missing),
        )
    return len(missing)


def _missing(root: Path, images: Sequence[str]) -> list[str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        there = pool.map(is_file, (os.path.join(root, image) for image in images), chunksize=256)  # noqa: PTH118
        return [image for image, found in zip(images, there, strict=True) if not found]


def _shown(root: Path, image: str) -> str:
    return image[:_LONGEST_SHOWN] if _URL.match(image) else str(root / image[:_LONGEST_SHOWN])


def _where_instead(root: Path, missing: Sequence[str]) -> str:
    """Where images may be of which none is where it should."""
    if _URL.match(missing[0]):
        return _DOWNLOAD
    if any(map(is_file, missing[:MOST_EXAMPLES])):
        return "They are there from the current folder on: give it as root (.)."
    if Path(missing[0]).is_absolute():
        return (
            "These are absolute paths, perhaps of another machine: make them relative, and give their folder as root."
        )
    return _spelled_otherwise(root, missing) or "Relative paths start at the table's folder; give another one as root."


def _spelled_otherwise(root: Path, missing: Sequence[str]) -> str:
    """What the folder of the first missing images has under nearly their names; empty where it has none."""
    for image in missing[:MOST_EXAMPLES]:
        if _URL.match(image):
            return _DOWNLOAD
        path = root / image
        try:
            beside = {name.casefold(): name for name in os.listdir(path.parent)}  # noqa: PTH208
        except (OSError, ValueError):
            continue
        stem = re.split(r"[#?]", path.name)[0].casefold()
        found = beside.get(stem) or next((name for key, name in beside.items() if os.path.splitext(key)[0] == stem), "")  # noqa: PTH122
        if found and found != path.name:
            return f"There is {found}: names must be the same to the letter, with their suffix."
    return ""
