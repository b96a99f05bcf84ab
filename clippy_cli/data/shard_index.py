"""Where the samples of a shard lie: its members by their keys, without their contents."""

from __future__ import annotations

import codecs
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.caption_text import captions_of_json
from clippy_cli.data.tar_members import Member, tar_members
from clippy_cli.errors import ClippyError
from clippy_cli.notices import MOST_EXAMPLES, Notice, NoticeKind, Notices
from clippy_cli.regular_files import open_regular

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_EXTENSIONS = ("txt", "json")
MAX_IMAGE_BYTES = 256 << 20
MAX_CAPTION_BYTES = 1 << 20
LAYOUT = f"looked for KEY.{'|'.join(IMAGE_EXTENSIONS)} beside KEY.{'|'.join(CAPTION_EXTENSIONS)}"

_IMAGES, _CAPTIONS = frozenset(IMAGE_EXTENSIONS), frozenset(CAPTION_EXTENSIONS)
_KNOWN = _IMAGES | _CAPTIONS
_BLANK_BYTES = 8  # a .txt of so few may hold nothing but a line break
KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_SYSTEM_FOLDER = re.compile(r"(?:^|/)(?:__MACOSX|@eaDir)/")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class ShardIndex:
    """Where the S samples of one shard lie, and what was found wrong in it.

    ``places`` is (S,5) int64: image offset, image size, caption offset, caption size, whether the caption is JSON;
    ``key_ends`` (S,) int64 are where each key ends in ``keys``. Arrays and joined bytes, not objects: ten million
    samples stay small, and forked workers share them. ``notices`` are about members that were not used as they stand,
    ``damage`` says why the rest of the shard cannot be read.
    """

    places: NDArray[np.int64]
    keys: bytes
    key_ends: NDArray[np.int64]
    notices: tuple[Notice, ...]
    extensions: Counter[str]
    damage: str | None

    def __len__(self) -> int:
        return len(self.places)

    def key(self, index: int) -> str:
        """The key of the sample at ``index``; another shard may have the same."""
        start = int(self.key_ends[index - 1]) if index else 0
        return self.keys[start : int(self.key_ends[index])].decode("utf-8", "replace")

    def fingerprint(self) -> bytes:
        """Of the keys, places and sizes of all samples; 16 bytes."""
        return blake2b(self.places.tobytes(), key=blake2b(self.keys, digest_size=16).digest(), digest_size=16).digest()

    def named(self, shard: str) -> Iterator[Notice]:
        """The notices with the shard's name in their examples, and one where it is damaged or holds no sample."""
        if self.damage is not None and not self.extensions:
            yield Notice(NoticeKind.SKIPPED, "file", f"not a tar archive: {self.damage}", 1, (shard,))
        elif self.damage is not None:
            whole = f"{len(self)} whole samples are used"
            yield Notice(NoticeKind.SKIPPED, "rest of a shard", f"{self.damage}; {whole}", 1, (shard,))
        elif not len(self):
            yield Notice(NoticeKind.SKIPPED, "shard", f"holds no sample; {LAYOUT}", 1, (shard,))
        for notice in self.notices:
            yield replace(notice, examples=tuple(f"{name} in {shard}" for name in notice.examples))


def index_shard(path: Path, name: str | None = None) -> ShardIndex:
    """Read every header of one tar file, called ``name`` in messages; what follows a damaged one is lost.

    ClippyError where the file cannot be read or is compressed.
    """
    found = _Found()
    damage = None
    try:
        with open_regular(path) as file:
            refuse_compressed(name or str(path), file.read(8))
            try:
                found.add_all(tar_members(file, file.seek(0, os.SEEK_END), found.notices))
            except (tarfile.TarError, ValueError, OverflowError) as error:  # the last two for impossible sizes
                damage = f"cut short or damaged ({error})"
            return found.index(file, damage)
    except OSError as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "Check the file and its permissions.") from error


class _Found:
    """The members of a shard by their keys.

    A key ends at the first dot, as webdataset has it. Where a member's type is only known after a later dot, the key
    goes up to the last dot if the short key has neither image nor caption, or the long one has both.
    """

    def __init__(self) -> None:
        self.notices = Notices()
        self._images: dict[str, tuple[int, int]] = {}
        self._captions: dict[str, tuple[int, int, bool]] = {}
        self._json: dict[str, tuple[int, int]] = {}  # beside a .txt that may be blank
        self._others: list[tuple[str, str, str, int, int]] = []
        self._beside: list[str] = []  # keys whose .txt is their caption, so that their .json is not read
        self._extensions = Counter[str]()

    def add_all(self, members: Iterable[Member]) -> None:
        """Sort in names, offsets and sizes; the loop is short because there are millions of members."""
        images, captions, extensions = self._images, self._captions, self._extensions
        fullmatch = KEY_AND_EXTENSION.fullmatch
        for member, offset, size in members:
            match = fullmatch(member)
            if "/" in member and _SYSTEM_FOLDER.search(member):
                self.notices.ignored("member", "in a folder of the system", member)
                continue
            if match is None:
                self.notices.ignored("member", "hidden, or without an extension", member)
                continue
            key, extension = match.groups()
            extension = extension.lower()
            extensions[extension] += 1
            if extension in _IMAGES and key not in images and size <= MAX_IMAGE_BYTES:
                images[key] = (offset, size)
            elif extension in _CAPTIONS and key not in captions and size <= MAX_CAPTION_BYTES:
                captions[key] = (offset, size, extension == "json")
            elif extension in _KNOWN:
                self._sort_in(key, extension, member, offset, size)
            else:
                self._others.append((member, key, extension, offset, size))

    def index(self, file: BinaryIO, damage: str | None) -> ShardIndex:
        """What was added, of the open shard ``file``."""
        dotted = self._add_dotted()
        self._replace_blank(file)
        images, captions = self._images, self._captions
        whole = [key for key in images if key in captions]
        if dotted:
            whole.sort(key=lambda key: images[key][0])
            assumed = [key for key in whole if key in dotted]
            if assumed:
                self.notices.assumed("sample", "the key goes up to the last dot, not to the first", *assumed)
        self._skip("caption", "no image of the same key", (key for key in captions if key not in images))
        self._skip("image", "no caption of the same key", (key for key in images if key not in captions))
        if self._beside:
            shown = [f"{key}.json" for key in self._beside[:MOST_EXAMPLES]]
            reason = "the .txt of the same key is the caption"
            self.notices.ignored("member", reason, *shown, count=len(self._beside))
        places = np.array([(*images[key], *captions[key]) for key in whole], np.int64).reshape(-1, 5)
        self._look_into_json(file, whole, places)
        names = [key.encode("utf-8", "surrogateescape") for key in whole]
        return ShardIndex(
            places=places,
            keys=b"".join(names),
            key_ends=np.array([len(name) for name in names], np.int64).cumsum(),
            notices=tuple(self.notices),
            extensions=self._extensions,
            damage=damage,
        )

    def _sort_in(self, key: str, extension: str, member: str, offset: int, size: int) -> None:
        is_image = extension in _IMAGES
        most = MAX_IMAGE_BYTES if is_image else MAX_CAPTION_BYTES
        if size > most:
            what = "image" if is_image else "caption"
            self.notices.skipped("member", f"{what} of more than {most >> 20} MiB", member)
        elif is_image:
            if self._images.setdefault(key, (offset, size))[0] != offset:
                self._repeated(member)
        else:
            self._add_caption(key, member, offset, size, extension == "json")

    def _add_caption(self, key: str, member: str, offset: int, size: int, is_json: bool) -> None:
        before = self._captions.get(key)
        if before is None:
            self._captions[key] = (offset, size, is_json)
        elif before[2] == is_json:
            if before[0] != offset:
                self._repeated(member)
        else:
            text = before if is_json else (offset, size, False)
            self._captions[key] = text
            if text[1] <= _BLANK_BYTES:
                self._json.setdefault(key, (offset, size) if is_json else before[:2])
            else:
                self._beside.append(key)

    def _add_dotted(self) -> set[str]:
        """Sort in members with dots in their keys, and count the others; the keys that were made."""
        dotted: set[str] = set()
        whole = self._whole_beside()
        for member, key, extension, offset, size in self._others:
            kind = extension.rpartition(".")[2]
            is_known = kind in _KNOWN
            longer = member[: -len(kind) - 1]
            if is_known and longer not in whole and (key in self._images or key in self._captions):
                self.notices.ignored("member", "not the image or caption of its key", member)
            elif is_known:
                dotted.add(longer)
                self._sort_in(longer, kind, member, offset, size)
            else:
                shown = f".{kind}" if kind.isalnum() and len(kind) < 9 and not kind.isdigit() else "unknown"
                self.notices.ignored("member", f"type {shown} is not read", member)
        return dotted

    def _whole_beside(self) -> set[str]:
        """Keys up to the last dot that have both an image and a caption, as ``a.1`` of ``a.1.jpg`` beside ``a.jpg``."""
        images, captions = set[str](), set[str]()
        for member, _, extension, _, _ in self._others:
            kind = extension.rpartition(".")[2]
            if kind in _KNOWN:
                (images if kind in _IMAGES else captions).add(member[: -len(kind) - 1])
        return images & captions

    def _replace_blank(self, file: BinaryIO) -> None:
        """Let the JSON of a key be its caption where its text is blank."""
        for key, (offset, size) in self._json.items():
            text_at, text_size, _ = self._captions[key]
            file.seek(text_at)
            if file.read(text_size).removeprefix(codecs.BOM_UTF8).strip():
                self._beside.append(key)
            else:
                self._captions[key] = (offset, size, True)
                self.notices.assumed("sample", "its .txt is empty, so that its .json is read", key)

    def _look_into_json(self, file: BinaryIO, keys: list[str], places: NDArray[np.int64]) -> None:
        """Count what of a sample's JSON is not among its captions; one that has none is broken when it is read."""
        for number in np.flatnonzero(places[:, 4]).tolist():
            offset, size = places[number, 2:4].tolist()
            try:
                captions, unused = captions_of_json(os.pread(file.fileno(), size, offset))
            except ValueError:
                continue
            for reason in unused if captions else ():
                self.notices.skipped("caption", reason, keys[number])

    def _repeated(self, member: str) -> None:
        self.notices.skipped("member", "repeats a key of the shard; the first one is used", member)

    def _skip(self, unit: str, reason: str, keys: Iterable[str]) -> None:
        count, shown = 0, []
        for key in keys:
            count += 1
            if count <= MOST_EXAMPLES:
                shown.append(key)
        if count:
            self.notices.skipped(unit, reason, *shown, count=count)


def refuse_compressed(name: str, start: bytes) -> None:
    """ClippyError where a file called ``name``, whose first bytes are ``start``, is compressed."""
    kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
    if kind is not None:
        raise ClippyError(
            f"{name} is compressed with {kind}; shards must be plain tar, so that samples can be read in any order",
            "Decompress it once; images do not get smaller by it anyway.",
        )
