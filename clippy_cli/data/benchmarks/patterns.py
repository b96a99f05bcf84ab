"""Where a set's photos and annotation lie: patterns with ``{}`` for an image's key."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from clippy_cli.data.image_files import is_hidden, is_image_name, is_system_folder, note_unread
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_file

AGAIN = "Unpack the data set again."


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
        self.note_doubles(sorted(key for key, count in times.items() if count > 1), notices)
        return tuple(sorted(times))

    def note_doubles(self, keys: Sequence[str], notices: Notices) -> None:
        """Count those of ``keys`` that have files of two patterns."""
        if len(self._patterns) > 1:
            twice = [key for key in keys if sum(is_file(path) for path in self._paths(key)) > 1]
            if twice:
                notices.assumed("key", f"files of two patterns fit, the first of {self} is used", *twice)

    def path(self, key: str) -> Path:
        """The file of a key: the first that is there, else where the first pattern looks for it.

        Names that differ in how accents are encoded are one, as they are for macOS.
        """
        if len(self._patterns) == 1 and key.isascii():
            return self._folder / fill(self._patterns[0], key)
        forms = dict.fromkeys((key, normalize("NFC", key), normalize("NFD", key)))
        paths = [path for form in forms for path in self._paths(form)]
        return next(filter(is_file, paths), paths[0])

    def _paths(self, key: str) -> list[Path]:
        return [self._folder / fill(pattern, key) for pattern in self._patterns]

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
    there = {normalize("NFC", key) for key in keys}
    lonely = {key for pattern in annotation for key in find_keys(folder, pattern) if normalize("NFC", key) not in there}
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
