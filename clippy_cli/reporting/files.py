"""Where results go: the kinds of files, and names that do not collide."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

COMMON_KINDS = ("overlay", "mask", "json", "cutouts")
SEGMENT_KINDS = (*COMMON_KINDS, "scores", "debug")
SEGMENT_DEFAULT = ("overlay", "mask", "json")
GROUP_KINDS = ("overlay", "mask", "json", "pca", "cutouts")
GROUP_DEFAULT = ("overlay", "mask", "json", "pca")
WITH_REGIONS = "+regions"  # after the stem of a second result, where regions come from elsewhere
GROUP_SUFFIX = "_groups"
_MOST_BYTES = 215  # of a stem: file systems end at 255, endings and "+regions" take up to 32
# What each kind adds to a result's stem; cutouts and debug are folders.
ENDINGS = {
    "overlay": "_overlay.png",
    "mask": "_mask.png",
    "json": ".json",
    "pca": "_pca.png",
    "scores": "_scores.npz",
    "cutouts": "_cutouts",
    "debug": "_debug",
}


def existing_files(base: Path, kinds: Iterable[str]) -> Iterator[Path]:
    """Files that are there already where a result with this folder and stem goes, folders' contents included."""
    for kind in kinds:
        path = base.with_name(base.name + ENDINGS[kind])
        if path.is_dir():
            yield from sorted(path.iterdir())
        elif os.path.lexists(path):
            yield path


def output_stems(paths: Sequence[Path]) -> list[str]:
    """A file name stem for each path, all different (upper and lower case are one) and the same on every run.

    A stem of its own stays as it is. Files that share folder and stem get their suffix behind; files that share the
    result get their folders in front, as many as it takes; a number parts what is left. One that is too long for a file
    system is cut.
    """
    whole = [path.absolute() for path in paths]
    twins = Counter(str(path.with_suffix("")).casefold() for path in whole)
    own = [
        path.stem + (f"_{path.suffix[1:].lower()}" if twins[str(path.with_suffix("")).casefold()] > 1 else "")
        for path in whole
    ]
    stems = list(own)
    for depth in range(1, max((len(path.parts) for path in whole), default=0)):
        for index in _clashing(stems):
            folders = (part.strip("/\\:") for part in whole[index].parts[-depth - 1 : -1])
            stems[index] = "_".join((*filter(None, folders), own[index]))
    clashing = _clashing(stems)
    taken = {stem.casefold() for index, stem in enumerate(stems) if index not in clashing}
    return [
        _fitting(_numbered(stem, taken) if index in clashing else stem, str(whole[index]))
        for index, stem in enumerate(stems)
    ]


def safe_name(label: str, taken: set[str]) -> str:
    """A label as a file name on any system: letters, digits, ``-`` and ``_`` stay; the result is added to ``taken``."""
    kept = "".join(character if character.isalnum() or character in "-_" else "_" for character in label)
    return _numbered(kept.strip("_")[:80] or "label", taken)


def _fitting(stem: str, path: str) -> str:
    """A stem of at most ``_MOST_BYTES``; one that is longer is cut, and ends with a digest of the photo's path."""
    encoded = os.fsencode(stem)
    if len(encoded) <= _MOST_BYTES:
        return stem
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return f"{encoded[: _MOST_BYTES - len(digest) - 1].decode(errors='ignore')}-{digest}"


def _clashing(stems: Sequence[str]) -> list[int]:
    counts = Counter(stem.casefold() for stem in stems)
    return [index for index, stem in enumerate(stems) if counts[stem.casefold()] > 1]


def _numbered(name: str, taken: set[str]) -> str:
    number, numbered = 1, name
    while numbered.casefold() in taken:
        number += 1
        numbered = f"{name}_{number}"
    taken.add(numbered.casefold())
    return numbered
