"""Where a set's photos and annotation lie: patterns with ``{}`` for an image's key, and listings of keys."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from clippy_cli.data.image_files import is_hidden, is_image_name, is_system_folder, note_unread
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices, printable
from clippy_cli.regular_files import is_file, read_bytes

AGAIN = "Unpack the data set again."
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, which Windows PowerShell writes


class PatternFiles:
    """The files below ``folder`` that patterns stand for, several of which mean their union.

    Where two patterns have a file for one key, that of the pattern counts that comes first.
    """

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        self._folder, self._patterns = folder, tuple(patterns)

    def keys(self, notices: Notices) -> tuple[str, ...]:
        """Keys of all files that are there, sorted; those of two files are counted. ClippyError where there is none.

        Patterns that no file fits are forgotten.
        """
        found = {pattern: set(find_keys(self._folder, pattern)) for pattern in self._patterns}
        times = Counter(key for keys in found.values() for key in keys)
        if not times:
            raise ClippyError(f"{self._folder}: no file fits {self}", AGAIN)
        self._patterns = tuple(pattern for pattern, keys in found.items() if keys)
        twice = sorted(key for key, count in times.items() if count > 1)
        if twice:
            notices.assumed("key", "files of two patterns fit, the first pattern's is used", *twice)
        return tuple(sorted(times))

    def path(self, key: str) -> Path:
        """The file of a key: the first that is there, else where the first pattern looks for it."""
        if len(self._patterns) > 1:
            paths = (self._folder / fill(pattern, key) for pattern in self._patterns)
            there = next((path for path in paths if is_file(path)), None)
            if there is not None:
                return there
        return self._folder / fill(self._patterns[0], key)

    def has(self, key: str) -> bool:
        """Whether a key has a file."""
        return is_file(self.path(key))

    def key_of(self, name: str) -> str | None:
        """The key of a path below the folder, written with ``/``; None where it fits no pattern."""
        keys = (key_of(name, pattern) for pattern in self._patterns)
        return next((key for key in keys if key is not None), None)

    def tops(self) -> tuple[str, ...]:
        """The folders that patterns begin with."""
        return tuple(dict.fromkeys(map(_top, self._patterns)))

    def __str__(self) -> str:
        return " or ".join(self._patterns)


def note_strays(folder: Path, photos: PatternFiles, annotation: PatternFiles, notices: Notices) -> set[str]:
    """Count what lies among the photos and fits no pattern: images, types that are not read; and whole system folders.

    An image whose stem is the key of an annotation file is one that was meant, so it is skipped, and its key returned;
    others are ignored.
    """
    skipped: set[str] = set()
    for top in photos.tops():
        for name in _walk(folder, top, notices):
            if photos.key_of(name) is not None or annotation.key_of(name) is not None:
                continue
            path = folder / name
            key = path.relative_to(folder / top).with_suffix("").as_posix()
            if not is_image_name(path.name):
                note_unread(path, name, notices)
            elif annotation.has(key) and not photos.has(key):
                hint = f"Add a pattern of {path.suffix} files to `images` in the set's data file."
                notices.skipped("photo", f"fits none of the patterns {photos}", name, hint=hint)
                skipped.add(key)
            else:
                notices.ignored("image", f"fits none of the patterns {photos}", name)
    return skipped


def note_lonely(folder: Path, keys: Iterable[str], annotation: Sequence[str], notices: Notices) -> None:
    """Count the annotation files that have no photo among ``keys``; a set that has a listing leaves others out."""
    lonely = {key for pattern in annotation for key in find_keys(folder, pattern)}.difference(keys)
    if lonely:
        notices.ignored("mask", "without a photo", *sorted(lonely))


def fill(pattern: str, key: str) -> str:
    """The path that ``pattern`` stands for with this key."""
    return pattern.replace("{}", key)


def key_of(name: str, pattern: str) -> str | None:
    """The key with which ``pattern`` gives a path; None where it does not."""
    before, _, after = pattern.partition("{}")
    fits = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def find_keys(folder: Path, pattern: str) -> Iterator[str]:
    """Keys of the files below ``folder`` that ``pattern`` fits, in no order; hidden and system folders do not count."""
    for name in _walk(folder, _top(pattern), Notices()):
        key = None if is_hidden(name.rpartition("/")[2]) else key_of(name, pattern)
        if key is not None:
            yield key


def parse_listing(
    text: str, *, where: str, photos: PatternFiles | None = None, notices: Notices | None = None
) -> tuple[str, ...]:
    """The keys in a listing, one a line.

    A line is a key, blanks in it included, or a photo's file name or path, whichever of ``photos`` is there; else its
    first word, as further columns may follow. Blank lines do not count, nor do lines after ``#`` that have no photo,
    which are counted in ``notices``. ClippyError on a key that leaves the folder or comes twice.
    """
    notices, keys = Notices() if notices is None else notices, dict[str, int]()
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        there = None if photos is None else _photo_of(stripped, photos, f"{where}:{number}", notices)
        if there is None and photos is not None and stripped.startswith("#"):
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


def read_listing(path: Path, photos: PatternFiles, notices: Notices) -> tuple[str, ...]:
    """:func:`parse_listing` of a file of any encoding that file names come in; ClippyError where it cannot be read."""
    try:
        content = read_bytes(path)
        if content.startswith(_BYTE_ORDER_MARKS):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig", "surrogateescape")  # as file names that are no UTF-8 come in Python
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{path}: cannot be read ({error})", AGAIN) from error
    return parse_listing(text, where=str(path), photos=photos, notices=notices)


def _photo_of(line: str, photos: PatternFiles, where: str, notices: Notices) -> str | None:
    """The key of the photo that a line names, the most literal reading first; None where there is none."""
    for text in dict.fromkeys((line, line.split()[0])):
        path = PurePosixPath(text)
        stem = path.with_suffix("") if is_image_name(path.name) else path
        for key in (text, photos.key_of(path.as_posix()), stem.as_posix()):
            if key is not None and _stays_inside(key) and photos.has(key):
                return key
        if len(path.parts) > 1 and ".." not in path.parts and photos.has(stem.name):
            notices.assumed("line", "a path to elsewhere, read as the photo of that name", where)
            return stem.name
    return None


def _stays_inside(key: str) -> bool:
    """Whether a key cannot leave the folder, and is printable but for bytes that are no UTF-8."""
    printed = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "\\" not in key and printed.isprintable() and not set(key.split("/")) & {"", ".", ".."}


def _top(pattern: str) -> str:
    return pattern.partition("{}")[0].rpartition("/")[0]


def _walk(folder: Path, top: str, notices: Notices) -> Iterator[str]:
    """Files in ``folder``/``top`` and below, as paths from ``folder`` on; hidden folders are passed over, and those of
    a system are counted.
    """
    for path, folders, files in os.walk(folder / top):
        below = Path(path).relative_to(folder).as_posix()
        before = "" if below == "." else f"{below}/"
        for name in filter(is_system_folder, folders):
            notices.ignored("folder", "of the system", before + name)
        folders[:] = [name for name in folders if not is_hidden(name) and not is_system_folder(name)]
        yield from (before + name for name in files)
