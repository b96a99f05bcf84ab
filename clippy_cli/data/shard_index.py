"""Where the samples of a shard lie: one walk over the headers of a tar file, without its contents."""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from clippy_cli.errors import ClippyError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_EXTENSIONS = ("txt", "json")
MAX_IMAGE_BYTES = 256 << 20
MAX_CAPTION_BYTES = 1 << 20
LAYOUT = f"looked for KEY.{'|'.join(IMAGE_EXTENSIONS)} beside KEY.{'|'.join(CAPTION_EXTENSIONS)}"

_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

_BLOCK = tarfile.BLOCKSIZE
_WINDOW = 16 << 10  # a caption's header mostly comes with the read of the one before
_TOGETHER = 4096
_PLAIN_HEADER = re.compile(
    rb"(.{100})(?:[0-7]{6}[0-7 ][\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ([05x\0])\0{100}"
    rb"ustar(?:\x0000|  \0).{64}(?:[0-7]{7}\0|\0{8}){2}\0{155}.{12}",
    re.DOTALL,
)
_TIMES = re.compile(rb"(\d{1,3}) [amc]time=\d+(?:\.\d+)?\n", re.ASCII)


@dataclass(frozen=True)
class ShardIndex:
    """Where the S samples of one shard lie, and what was found wrong in it.

    ``places`` is (S,5) int64: image offset, image size, caption offset, caption size, whether the caption is JSON;
    ``key_ends`` (S,) int64 are where each key ends in ``keys``. Arrays and joined bytes, not objects: ten million
    samples stay small, and forked workers share them.
    """

    places: NDArray[np.int64]
    keys: bytes
    key_ends: NDArray[np.int64]
    without_image: tuple[str, ...]
    without_caption: tuple[str, ...]
    repeated: tuple[str, ...]
    extensions: Counter[str]
    damage: str | None

    def __len__(self) -> int:
        return len(self.places)

    def key(self, index: int) -> str:
        """The key of the sample at ``index``; another shard may have the same."""
        start = int(self.key_ends[index - 1]) if index else 0
        return self.keys[start : int(self.key_ends[index])].decode("utf-8", "replace")


def index_shard(path: Path, name: str | None = None) -> ShardIndex:
    """Read every header of one tar file, called ``name`` in messages; what follows a damaged one is lost.

    ClippyError where the file cannot be read or is compressed.
    """
    images: dict[str, tuple[int, int]] = {}
    captions: dict[str, tuple[int, int, bool]] = {}
    extensions = Counter[str]()
    repeated: list[str] = []
    damage = None
    try:
        with path.open("rb") as file:
            _refuse_compressed(name or str(path), file.read(8))
            for member, offset, size in _members(file, file.seek(0, os.SEEK_END)):
                match = _KEY_AND_EXTENSION.fullmatch(member)
                if match is None:
                    continue
                key, extension = match[1], match[2].lower()
                extensions[extension] += 1
                if extension in IMAGE_EXTENSIONS and size <= MAX_IMAGE_BYTES:
                    if images.setdefault(key, (offset, size))[0] != offset:
                        repeated.append(member)
                elif extension in CAPTION_EXTENSIONS and size <= MAX_CAPTION_BYTES:
                    is_json = extension == "json"
                    if key not in captions or (captions[key][2] and not is_json):
                        captions[key] = (offset, size, is_json)
                    elif captions[key][2] == is_json:
                        repeated.append(member)
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the last two for impossible sizes
        damage = f"cut short or damaged ({error})"
    except OSError as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "Check the file and its permissions.") from error
    whole = [key for key in images if key in captions]
    names = [key.encode("utf-8", "surrogateescape") for key in whole]
    return ShardIndex(
        places=np.array([(*images[key], *captions[key]) for key in whole], np.int64).reshape(-1, 5),
        keys=b"".join(names),
        key_ends=np.array([len(name) for name in names], np.int64).cumsum(),
        without_image=tuple(key for key in captions if key not in images),
        without_caption=tuple(key for key in images if key not in captions),
        repeated=tuple(repeated),
        extensions=extensions,
        damage=damage,
    )


def index_problems(shards: Iterable[tuple[str, ShardIndex]]) -> Iterator[str]:
    """A sentence for each damaged or empty shard, and one for each kind of sample that is left out."""
    shards = list(shards)
    for name, index in shards:
        if index.damage is not None:
            yield f"{name}: {index.damage}; {len(index)} whole samples are used"
        elif not len(index):
            yield f"{name}: holds no sample; {LAYOUT}"
    for field, what in (
        ("without_image", "samples without image"),
        ("without_caption", "samples without caption"),
        ("repeated", "repeated members"),
    ):
        found = [(name, member) for name, index in shards for member in getattr(index, field)]
        if found:
            yield f"{len(found)} {what} are left out, such as {found[0][1]} in {found[0][0]}"


def _members(file: BinaryIO, size: int) -> Iterable[tuple[str, int, int]]:
    """Name, content offset and content size of each regular member of a tar file of ``size`` bytes."""
    plain = _plain_members(file, size)
    return _tarfile_members(file, size) if plain is None else plain


def _plain_members(file: BinaryIO, size: int) -> list[tuple[str, int, int]] | None:
    """The members where the file is whole and all is common: short names, and of PAX headers only times.

    None for everything else, damage included: that is for tarfile to judge, at a fifth of the speed.
    """
    members: list[tuple[str, int, int]] = []
    headers: list[bytes] = []  # whose checksums are still to be compared, together because that is faster
    checksums: list[int] = []
    offset, window, start, extended = 0, b"", 0, False
    while True:
        place = offset - start
        if place + _BLOCK > len(window):
            file.seek(offset)
            window, start, place = file.read(_WINDOW), offset, 0
        header = _PLAIN_HEADER.match(window, place)
        if header is None:
            ended = window[place : place + _BLOCK] == bytes(_BLOCK) and not extended
            return members if ended and _sums_agree(headers, checksums) else None
        name, digits, checksum, kind = header.groups()
        headers.append(window[place : place + _BLOCK])
        checksums.append(int(checksum, 8))
        if len(headers) == _TOGETHER:
            if not _sums_agree(headers, checksums):
                return None
            headers, checksums = [], []
        content, length = offset + _BLOCK, int(digits, 8)
        offset = content + -(-length // _BLOCK) * _BLOCK
        if content + length > size or (extended and kind == b"x"):
            return None
        extended = kind == b"x"
        if extended:
            times = window[place + _BLOCK : place + _BLOCK + length]
            if len(times) < length:
                file.seek(content)
                times = file.read(min(length, _WINDOW))
            if not _only_times(times, length):
                return None
        elif kind == b"5":
            if length:
                return None
        else:
            name = name.partition(b"\0")[0]
            if kind == b"\0" and name.endswith(b"/"):  # an ancient way to write a folder
                return None
            members.append((name.decode("utf-8", "surrogateescape"), content, length))


def _sums_agree(headers: list[bytes], checksums: list[int]) -> bool:
    blocks = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, _BLOCK)
    sums = blocks.sum(1, np.int64) - blocks[:, 148:156].sum(1, np.int64) + 8 * ord(" ")
    return bool((sums == checksums).all())


def _only_times(records: bytes, length: int) -> bool:
    """Whether a PAX header of ``length`` bytes says nothing but times."""
    place = 0
    while place < length:
        record = _TIMES.match(records, place)
        if record is None or int(record[1]) != record.end() - place:
            return False
        place = record.end()
    return place == length > 0


def _tarfile_members(file: BinaryIO, size: int) -> Iterator[tuple[str, int, int]]:
    """The members whose content is whole; ReadError where the file ends before its end mark.

    Left to itself, tarfile takes a cut or a damaged header after the first one for the end of the archive.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps each header it has seen
            end = member.offset_data + member.size
            if member.size < 0 or end > size:
                raise tarfile.ReadError(f"{member.name} ends at byte {end:,} of {size:,}")
            if member.isreg() and member.sparse is None:
                yield member.name, member.offset_data, member.size
        file.seek(archive.offset)
        mark = file.read(_BLOCK)
        if not mark or any(mark):
            raise tarfile.ReadError(f"no end mark at byte {archive.offset:,} of {size:,}")


def _refuse_compressed(name: str, start: bytes) -> None:
    kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
    if kind is not None:
        raise ClippyError(
            f"{name} is compressed with {kind}; shards must be plain tar, so that samples can be read in any order",
            "Decompress it once; images do not get smaller by it anyway.",
        )
