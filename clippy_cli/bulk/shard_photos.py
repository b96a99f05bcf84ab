"""The photos of one shard, by key, in the order of the shard; captions and whatever else lies there are left alone."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.image_files import HEIC_SUFFIXES, IMAGE_SUFFIXES
from clippy_cli.data.images import decode_image
from clippy_cli.data.shard_index import KEY_AND_EXTENSION, MAX_IMAGE_BYTES, refuse_compressed
from clippy_cli.data.tar_members import Member, tar_members
from clippy_cli.errors import ClippyError
from clippy_cli.files import stays_below
from clippy_cli.inference.features import DecodedPhoto
from clippy_cli.notices import Notices
from clippy_cli.regular_files import open_regular

_EXTENSIONS = frozenset(suffix[1:] for suffix in (*IMAGE_SUFFIXES, *HEIC_SUFFIXES))


class Place(NamedTuple):
    """Where a photo's file lies in a shard, in bytes."""

    key: str
    offset: int
    size: int


@dataclass(frozen=True)
class Photos:
    """What one input holds: ``photos`` and their ``keys`` in order, and what beside them was not used as it stands."""

    keys: list[str]
    photos: list[object]
    notices: Notices


class PackedPhoto(DecodedPhoto):
    """A photo of an open shard that is read and decoded whenever its pixels are asked for, so that many take no room.

    ``image`` raises ClippyError where it cannot be decoded; ``notices`` are those of the last time.
    """

    def __init__(self, file: BinaryIO, place: Place, shard: str) -> None:
        for name, value in (("key", f"{shard}: {place.key}"), ("_file", file), ("_place", place)):
            object.__setattr__(self, name, value)  # as the constructor of a frozen dataclass does

    _file: BinaryIO
    _place: Place

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H,W,3) uint8 RGB, upright."""
        notices = Notices()
        try:
            data = os.pread(self._file.fileno(), self._place.size, self._place.offset)
        except OSError as error:
            raise ClippyError(f"{self.key}: cannot be read ({error})", "Check the disk.") from error
        image = decode_image(data, where=self.key, notices=notices)
        object.__setattr__(self, "notices", tuple(notices))
        return image


@contextmanager
def open_shard(path: Path, name: str) -> Iterator[Photos]:
    """The photos of a plain tar file, called ``name``, while the block runs.

    A key ends at the first dot of the base name, or at the last one where the member's type only shows there. Of a
    shard that is cut short its whole photos are used. ClippyError where it cannot be read, is compressed or no tar.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise ClippyError(f"{name}: cannot be read ({error.strerror or error})", "Check the file.") from error
    with file:
        refuse_compressed(name, file.read(8))
        notices = Notices()
        places = photo_places(file, name, notices)
        yield Photos([place.key for place in places], [PackedPhoto(file, place, name) for place in places], notices)


def photo_places(file: BinaryIO, name: str, notices: Notices) -> list[Place]:
    """Where the photos of an open tar file lie; ``notices`` count the other members, and damage."""
    size = file.seek(0, os.SEEK_END)
    found = _Found(notices, name)
    try:
        for member in tar_members(file, size, notices):
            found.add(member)
    except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
        if not found.members:
            raise ClippyError(f"{name}: not a tar archive ({error})", "Give plain tar files.") from error
        whole = f"{len(found.places)} whole photos are used"
        notices.skipped("rest of a shard", f"cut short or damaged; {whole}", f"{name}: {error}")
    return found.finish()


class _Found:
    """Members as they come, sorted into photos and others."""

    def __init__(self, notices: Notices, shard: str) -> None:
        self._notices, self._shard = notices, shard
        self.places: dict[str, Place] = {}
        self._dotted: list[tuple[Place, str]] = []
        self.members = 0

    def add(self, member: Member) -> None:
        self.members += 1
        name, offset, size = member
        match = KEY_AND_EXTENSION.fullmatch(name)
        kind = name.rpartition(".")[2].lower()
        if match is None:
            self._notices.ignored("member", "hidden, or without an extension", self._named(name))
        elif kind not in _EXTENSIONS:
            shown = f"type .{kind}" if kind.isalnum() and len(kind) < 9 else "unknown type"
            self._notices.ignored("member", f"{shown} is not a photo", self._named(name))
        elif size > MAX_IMAGE_BYTES:
            self._notices.skipped("member", f"photo of more than {MAX_IMAGE_BYTES >> 20} MiB", self._named(name))
        elif match[2].lower() == kind:
            self._take(Place(match[1], offset, size), name)
        else:
            self._dotted.append((Place(name[: -len(kind) - 1], offset, size), match[1]))

    def finish(self) -> list[Place]:
        """All photos, in the order of the shard."""
        short = set(self.places)
        for place, key in self._dotted:
            if key in short:
                self._notices.ignored("member", "not the photo of its key", self._named(place.key))
            else:
                self._notices.assumed(
                    "photo", "the key goes up to the last dot, not to the first", self._named(place.key)
                )
                self._take(place, place.key)
        return sorted(self.places.values(), key=lambda place: place.offset)

    def _take(self, place: Place, name: str) -> None:
        if not stays_below(place.key):
            self._notices.skipped("member", "its name is not printable or leads elsewhere", self._named(name))
        elif place.key in self.places:
            self._notices.skipped("member", "repeats a key of the shard; the first one is used", self._named(name))
        else:
            self.places[place.key] = place

    def _named(self, member: str) -> str:
        return f"{member} in {self._shard}"
