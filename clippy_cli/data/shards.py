"""Caption sources in webdataset's layout: plain tar files in which an image and its caption share a key.

Each shard's headers are read once, so that samples can be read in any order and a run can be resumed exactly.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from braceexpand import braceexpand
from numpy.typing import NDArray

from clippy_cli.data.captions import BrokenSampleError, CaptionedImage, broken_image
from clippy_cli.data.images import decode_image
from clippy_cli.errors import ClippyError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_EXTENSIONS = ("txt", "json")
MAX_IMAGE_BYTES = 256 << 20
MAX_CAPTION_BYTES = 1 << 20
MAX_SHARDS = 1_000_000

_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_LAYOUT = f"looked for KEY.{'|'.join(IMAGE_EXTENSIONS)} beside KEY.{'|'.join(CAPTION_EXTENSIONS)}"
_THREADS = 8


@dataclass(frozen=True)
class _ShardIndex:
    """Where the samples of one shard lie, and what was found wrong in it.

    ``places`` is (S,5) int64: image offset, image size, caption offset, caption size, whether the caption is JSON.
    Arrays and joined bytes, not objects: ten million samples stay small, and forked workers share them.
    """

    places: NDArray[np.int64]
    keys: bytes
    key_sizes: NDArray[np.int64]
    without_image: tuple[str, ...]
    without_caption: tuple[str, ...]
    repeated: tuple[str, ...]
    extensions: Counter[str]
    damage: str | None


class ShardSource:
    """Samples of tar files named by path, brace range (``train-{0000..0099}.tar``) or glob.

    An image is ``KEY.jpg``, ``.jpeg``, ``.png`` or ``.webp``; its caption is ``KEY.txt`` (one, UTF-8) or, without it,
    ``KEY.json`` with ``"captions": [...]`` or ``"caption": "..."``. The key is the member's path up to the first dot of
    its base name. A shard that is cut short keeps its whole samples. ClippyError where a shard is missing or
    compressed, or where no shard holds a sample.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._shards = _expand(paths)
        with ThreadPoolExecutor(_THREADS) as threads:
            indices = list(threads.map(_index_shard, self._shards))
        self.problems = tuple(_problems(self._shards, indices))
        sizes = [len(index.places) for index in indices]
        if not any(sizes):
            found = sum((index.extensions for index in indices), Counter[str]())
            kinds = ", ".join(f"{count} .{kind}" for kind, count in found.most_common(6)) or "no files"
            raise ClippyError(
                f"No sample in {len(self._shards)} shards ({', '.join(paths)}): {_LAYOUT}, found {kinds}",
                "; ".join(self.problems[:3]) or None,
            )
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)
        self._places = np.concatenate([index.places for index in indices])
        self._keys = b"".join(index.keys for index in indices)
        self._key_ends = np.concatenate([index.key_sizes for index in indices]).cumsum()

    def __len__(self) -> int:
        return len(self._places)

    def key(self, index: int) -> str:
        """The key of the sample at ``index``; another shard may have the same."""
        start = int(self._key_ends[index - 1]) if index else 0
        return self._keys[start : int(self._key_ends[index])].decode("utf-8", "replace")

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the sample at ``index``, without its image; BrokenSampleError where there is none."""
        _, _, start, size, is_json = self._places[index].tolist()
        where, data = self._member(index, start, size)
        return _json_captions(data, where) if is_json else _text_caption(data, where)

    def read(self, index: int) -> CaptionedImage:
        """The sample at ``index``, shards in the order given and samples in the order of their shard."""
        image_start, image_size, *_ = self._places[index].tolist()
        captions = self.captions(index)
        where, data = self._member(index, image_start, image_size)
        try:
            return CaptionedImage(self.key(index), decode_image(data, where=where), captions)
        except ClippyError as error:
            raise broken_image(where, error) from error

    def describe(self) -> str:
        """One line for the training log."""
        names = self._shards[0].name if len(self._shards) == 1 else f"{self._shards[0].name} to {self._shards[-1].name}"
        return f"{len(self)} samples in {len(self._shards)} shards ({names})"

    def _member(self, index: int, start: int, size: int) -> tuple[str, bytes]:
        """What a sample is called in messages, and these bytes of its shard."""
        path = self._shards[int(self._shard_of[index])]
        where = f"{path}: {self.key(index)}"
        try:
            with path.open("rb") as file:
                return where, _read_at(file, start, size)
        except OSError as error:
            raise BrokenSampleError(where, f"cannot be read ({error})") from error


def _expand(patterns: Sequence[str]) -> list[Path]:
    """Brace ranges and globs -> existing files, in the order given."""
    shards: list[Path] = []
    for pattern in patterns:
        if re.match(r"\w+://|pipe:", pattern):
            raise ClippyError(
                f"{pattern}: shards are read from local files only", "Download them and give their paths."
            )
        named = [Path(pattern)] if Path(pattern).is_file() else list(_expand_one(pattern))
        missing = [path for path in named if not path.is_file()]
        if missing:
            first = ", ".join(str(path) for path in missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ClippyError(
                f"{len(missing)} of {len(named)} shards of {pattern!r} do not exist: {first}",
                "Check the path and the range.",
            )
        if not named:
            raise ClippyError(f"No file matches the shard pattern {pattern!r}", "Check the folder and the pattern.")
        shards += named
    if not shards:
        raise ClippyError("No shard is named", "Give tar files, such as 'train-{0000..0099}.tar'.")
    return shards


def _expand_one(pattern: str) -> Iterator[Path]:
    ranges = re.findall(r"(-?\d{1,18})\.\.(-?\d{1,18})", pattern)
    too_many = ClippyError(f"{pattern} stands for more than {MAX_SHARDS:,} shards", "Check the range.")
    if any(abs(int(last) - int(first)) >= MAX_SHARDS for first, last in ranges):
        raise too_many  # braceexpand would build the whole range first
    try:
        names = list(itertools.islice(braceexpand(pattern, escape=False), MAX_SHARDS + 1))
    except ValueError as error:
        raise ClippyError(f"{pattern}: {error}", "A range is written as in train-{0000..0099}.tar.") from error
    if len(names) > MAX_SHARDS:
        raise too_many
    for name in names:
        if glob.has_magic(name):
            yield from map(Path, sorted(glob.glob(name, recursive=True)))  # noqa: PTH207 (takes absolute patterns)
        else:
            yield Path(name)


def _index_shard(path: Path) -> _ShardIndex:
    """Read every header of one tar file; what follows a damaged one is lost."""
    images: dict[str, tuple[int, int]] = {}
    captions: dict[str, tuple[int, int, bool]] = {}
    extensions = Counter[str]()
    repeated: list[str] = []
    damage = None
    try:
        with path.open("rb") as file:
            _refuse_compressed(path, file.read(8))
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            for member in _regular_members(file, size):
                match = _KEY_AND_EXTENSION.fullmatch(member.name)
                if match is None:
                    continue
                key, extension = match[1], match[2].lower()
                extensions[extension] += 1
                if extension in IMAGE_EXTENSIONS and member.size <= MAX_IMAGE_BYTES:
                    if images.setdefault(key, (member.offset_data, member.size))[0] != member.offset_data:
                        repeated.append(member.name)
                elif extension in CAPTION_EXTENSIONS and member.size <= MAX_CAPTION_BYTES:
                    is_json = extension == "json"
                    if key not in captions or (captions[key][2] and not is_json):
                        captions[key] = (member.offset_data, member.size, is_json)
                    elif captions[key][2] == is_json:
                        repeated.append(member.name)
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the last two for impossible sizes
        damage = f"cut short or damaged ({error})"
    except OSError as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "Check the file and its permissions.") from error
    whole = [key for key in images if key in captions]
    names = [key.encode("utf-8", "surrogateescape") for key in whole]
    return _ShardIndex(
        places=np.array([(*images[key], *captions[key]) for key in whole], np.int64).reshape(-1, 5),
        keys=b"".join(names),
        key_sizes=np.array([len(name) for name in names], np.int64),
        without_image=tuple(key for key in captions if key not in images),
        without_caption=tuple(key for key in images if key not in captions),
        repeated=tuple(repeated),
        extensions=extensions,
        damage=damage,
    )


def _regular_members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file of ``size`` bytes whose content is whole; ReadError where it ends before its end mark.

    Left to itself, tarfile takes a cut or a damaged header after the first one for the end of the archive.
    """
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps each header it has seen
            end = member.offset_data + member.size
            if member.size < 0 or end > size:
                raise tarfile.ReadError(f"{member.name} ends at byte {end:,} of {size:,}")
            if member.isreg() and member.sparse is None:
                yield member
        file.seek(archive.offset)
        mark = file.read(tarfile.BLOCKSIZE)
        if not mark or any(mark):
            raise tarfile.ReadError(f"no end mark at byte {archive.offset:,} of {size:,}")


def _refuse_compressed(path: Path, start: bytes) -> None:
    kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
    if kind is not None:
        raise ClippyError(
            f"{path} is compressed with {kind}; shards must be plain tar, so that samples can be read in any order",
            "Decompress it once; images do not get smaller by it anyway.",
        )


def _problems(shards: Sequence[Path], indices: Sequence[_ShardIndex]) -> Iterator[str]:
    for path, index in zip(shards, indices, strict=True):
        if index.damage is not None:
            yield f"{path}: {index.damage}; {len(index.places)} whole samples are used"
        elif not len(index.places):
            yield f"{path}: holds no sample; {_LAYOUT}"
    for field, what in (
        ("without_image", "samples without image"),
        ("without_caption", "samples without caption"),
        ("repeated", "repeated members"),
    ):
        found = [(path, name) for path, index in zip(shards, indices, strict=True) for name in getattr(index, field)]
        if found:
            yield f"{len(found)} {what} are left out, such as {found[0][1]} in {found[0][0]}"


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise OSError("the shard has become shorter since it was indexed")
    return data


def _text_caption(data: bytes, where: str) -> tuple[str, ...]:
    try:
        caption = " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise BrokenSampleError(where, f"caption is not UTF-8 ({error})") from error
    if not caption:
        raise BrokenSampleError(where, "caption is empty")
    return (caption,)


def _json_captions(data: bytes, where: str) -> tuple[str, ...]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenSampleError(where, f"caption file is not JSON ({error})") from error
    found = (fields.get("captions") or fields.get("caption")) if isinstance(fields, dict) else None
    texts = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    captions = tuple(" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip())
    if not captions:
        raise BrokenSampleError(where, 'JSON holds no caption: needs "captions": ["..."] or "caption": "..."')
    return captions
