"""One walk over the headers of a tar file: every member whose content lies in the file, and what is none."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from clippy_cli.notices import Notices

_BLOCK = tarfile.BLOCKSIZE
_WINDOW = 16 << 10  # a caption's header mostly comes with the read of the one before
_TOGETHER = 4096
_PLAIN_HEADER = re.compile(
    rb"(.{100})(?:[0-7]{6}[0-7 ][\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ([05x\0])\0{100}"
    rb"ustar(?:\x0000|  \0).{64}(?:[0-7]{7}\0|\0{8}){2}\0{155}.{12}",
    re.DOTALL,
)
_TIMES = re.compile(rb"(\d{1,3}) [amc]time=\d+(?:\.\d+)?\n", re.ASCII)
_TAIL = 1 << 16

Member = tuple[str, int, int]


def tar_members(file: BinaryIO, size: int, notices: Notices) -> Iterator[Member]:
    """Name, content offset and content size of each member of a tar file of ``size`` bytes.

    Archives that were joined are read one after the other; a link leads to the member of the file that it names, and
    comes last. What cannot be delivered is counted in ``notices``. TarError, ValueError or OverflowError where the file
    is damaged.
    """
    links: list[tuple[str, str]] = []
    places: dict[str, tuple[int, int]] = {}
    start = 0
    while True:
        plain = _plain_members(file, size, start)
        if plain is None:
            end = yield from _tarfile_members(file, size, start, _Odd(notices, links, places))
        else:
            members, end = plain
            yield from members
        start = _after_zeros(file, end, size)
        if start >= size:
            break
        notices.assumed("archive", "joined behind the end mark of another, and read too", f"byte {start:,}")
    for name, target in links:
        if target in places:
            yield (name, *places[target])
        else:
            notices.skipped("member", "a link to what the shard does not hold", name)


class _Odd(NamedTuple):
    """What is no plain member: counted, or a link to be followed at the end, by the name of its target."""

    notices: Notices
    links: list[tuple[str, str]]
    places: dict[str, tuple[int, int]]

    def take(self, member: tarfile.TarInfo) -> None:
        if member.islnk():
            self.links.append((member.name, member.linkname))
        elif member.issym():
            target = posixpath.join(posixpath.dirname(member.name), member.linkname)
            self.links.append((member.name, posixpath.normpath(target)))
        elif not member.isdir():
            self.notices.skipped("member", "a sparse or special file", member.name)


def _plain_members(file: BinaryIO, size: int, start: int = 0) -> tuple[list[Member], int] | None:
    """The members from ``start`` to an end mark, and where that is; only where all is whole and common.

    Common are short names, and of PAX headers only times. None for everything else, damage included: that is for
    tarfile to judge, at a fifth of the speed.
    """
    members: list[Member] = []
    headers: list[bytes] = []  # whose checksums are still to be compared, together because that is faster
    checksums: list[int] = []
    offset, window, begin, extended = start, b"", start, False
    while True:
        place = offset - begin
        if place + _BLOCK > len(window):
            file.seek(offset)
            window, begin, place = file.read(_WINDOW), offset, 0
        header = _PLAIN_HEADER.match(window, place)
        if header is None:
            ended = window[place : place + _BLOCK] == bytes(_BLOCK) and not extended
            return (members, offset) if ended and _sums_agree(headers, checksums) else None
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


def _tarfile_members(file: BinaryIO, size: int, start: int, odd: _Odd) -> Generator[Member, None, int]:
    """The members whose content is whole; returns where the end mark is. ReadError where the file ends before it.

    Left to itself, tarfile takes a cut or a damaged header after the first one for the end of the archive.
    """
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps each header it has seen
            end = member.offset_data + member.size
            if member.size < 0 or end > size:
                raise tarfile.ReadError(f"{member.name} ends at byte {end:,} of {size:,}")
            if member.isreg() and member.sparse is None:
                odd.places.setdefault(member.name, (member.offset_data, member.size))
                yield member.name, member.offset_data, member.size
            else:
                odd.take(member)
        file.seek(archive.offset)
        mark = file.read(_BLOCK)
        if not mark or any(mark):
            raise tarfile.ReadError(f"no end mark at byte {archive.offset:,} of {size:,}")
        return archive.offset


def _after_zeros(file: BinaryIO, offset: int, size: int) -> int:
    """Where the first block that is not zero begins at or after ``offset``; ``size`` where there is none."""
    file.seek(offset)
    while data := file.read(_TAIL):
        if any(data):
            return offset + (len(data) - len(data.lstrip(b"\0"))) // _BLOCK * _BLOCK
        offset += len(data)
    return size
