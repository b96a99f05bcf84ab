"""Listings of a set's images: text files of keys, file names or paths, one a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clippy_cli.data.benchmarks.patterns import AGAIN, PatternFiles
from clippy_cli.data.image_files import is_image_name
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices, printable
from clippy_cli.regular_files import read_bytes

_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, which Windows PowerShell writes
_QUOTES = "\"'"
_BETWEEN_COLUMNS = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class SetFiles:
    """The photos and, where they are single files, the masks that the keys of a listing name."""

    photos: PatternFiles
    masks: PatternFiles | None = None


def read_listing(path: Path, files: SetFiles, notices: Notices) -> tuple[str, ...]:
    """:func:`parse_listing` of a file of any encoding that file names come in; ClippyError where it cannot be read."""
    try:
        content = read_bytes(path)
        if content.startswith(_BYTE_ORDER_MARKS):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig", "surrogateescape")  # as file names that are not UTF-8 come in Python
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{path}: cannot be read ({error})", AGAIN) from error
    keys = parse_listing(text, where=str(path), files=files, notices=notices)
    for patterns in (files.photos, files.masks):
        if patterns is not None:
            patterns.note_doubles(keys, notices)
    return keys


def parse_listing(
    text: str, *, where: str, files: SetFiles | None = None, notices: Notices | None = None
) -> tuple[str, ...]:
    """The keys in a listing, one a line.

    A line is a key, blanks in it included, or a photo's file name or path, whichever of ``files`` is there; else its
    first word, as further columns may follow, which are not used. Blank lines do not count, nor do lines after ``#``
    that have no photo. What does not count is noted in ``notices``. ClippyError on a key that leaves the folder or
    comes twice.
    """
    notices, keys = Notices() if notices is None else notices, dict[str, int]()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        there = None if files is None else _photo_of(stripped, files, f"{where}:{number}", notices)
        if there is None and files is not None and stripped.startswith("#"):
            notices.ignored("line", f"a comment in {where}", f"line {number}")
            continue
        key = stripped.split()[0] if there is None else there
        if not _stays_inside(key):
            raise ClippyError(f"{where}:{number}: {key!r} does not name an image in the set's folder", AGAIN)
        if key in keys and len(stripped.split()) > 1 and there is None:
            raise ClippyError(
                f"{where}:{number}: no photo is called {printable(stripped)!r}, and its first word {key!r} is in line "
                f"{keys[key]} already",
                "List one key a line, as it stands for {} in the patterns of the set's data file.",
            )
        if key in keys:
            raise ClippyError(f"{where}:{number}: {key!r} is listed twice, in line {keys[key]} already", AGAIN)
        keys[key] = number
    if not keys:
        raise ClippyError(f"{where}: lists no image", AGAIN)
    return tuple(keys)


def _photo_of(line: str, files: SetFiles, where: str, notices: Notices) -> str | None:
    """The key of the photo that a line names, the most literal reading first; None where there is none."""
    words = (line, line.split()[0], _BETWEEN_COLUMNS.split(line)[0])
    texts = tuple(dict.fromkeys((*words, *(word.strip(_QUOTES) for word in words))))
    for text in texts:
        path = PurePosixPath(text)
        stem = path.with_suffix("") if is_image_name(path.name) else path
        for key in (text, files.photos.key_of(path.as_posix()), stem.as_posix()):
            if key is not None and _stays_inside(key) and files.photos.has(key):
                _note_columns(line.lstrip(_QUOTES).removeprefix(text), key, files, where, notices)
                return key
    for text in (*texts[1:], line):
        path = PurePosixPath(text)
        key = path.stem if is_image_name(path.name) else path.name
        if len(path.parts) > 1 and ".." not in path.parts and files.photos.has(key):
            notices.assumed("line", "a path to elsewhere, read as the photo of that name", where)
            _note_columns(line.lstrip(_QUOTES).removeprefix(text), key, files, where, notices)
            return key
    return None


def _note_columns(rest: str, key: str, files: SetFiles, where: str, notices: Notices) -> None:
    """Count what stands behind the photo in a line, and a mask there that is not the one that patterns give."""
    columns = [word.strip(_QUOTES) for word in _BETWEEN_COLUMNS.split(rest) if word.strip(_QUOTES)]
    names = {PurePosixPath(word).name for word in columns if is_image_name(PurePosixPath(word).name)}
    if names and files.masks is not None and files.masks.path(key).name not in names:
        reason = "names another mask than the patterns of the set's data file do, which count"
        notices.assumed("line", reason, where, hint="List keys alone, or mend the patterns.")
    elif columns and not names:
        notices.ignored("line", "what follows the key is not used", where)


def _stays_inside(key: str) -> bool:
    """Whether a key cannot leave the folder, and is printable but for bytes that are not UTF-8."""
    printed = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "\\" not in key and printed.isprintable() and not set(key.split("/")) & {"", ".", ".."}
