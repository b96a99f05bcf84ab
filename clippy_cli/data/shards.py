"""Caption sources in webdataset's layout: plain tar files in which an image and its caption share a key.

Each shard's headers are read once, so that samples can be read in any order and a run can be resumed exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clippy_cli.data.caption_text import captions_of_json, one_line, stands_for_nothing
from clippy_cli.data.captions import BrokenSampleError, CaptionedImage, broken_image
from clippy_cli.data.index_cache import kept_index
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.shard_index import LAYOUT, ShardIndex
from clippy_cli.data.shard_names import local_shards
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

_THREADS = 2  # hide some of a disk's latency; more only fight over the interpreter


class Shard:
    """One tar file whose samples, numbered from 0, can be read in any order; ``name`` is what messages call it."""

    def __init__(self, path: Path, name: str, index: ShardIndex) -> None:
        self.path, self.name, self.index = path, name, index

    def captions(self, number: int) -> tuple[str, ...]:
        """The captions of a sample, without its image; BrokenSampleError where there is none."""
        with self._opened(number) as file:
            return self._captions(file, number)

    def image_bytes(self, number: int) -> bytes:
        """The image of a sample as it is stored; BrokenSampleError where it cannot be read."""
        with self._opened(number) as file:
            return self._image(file, number)

    def read(self, number: int) -> CaptionedImage:
        """A sample; BrokenSampleError where it cannot be used."""
        where = self._where(number)
        with self._opened(number) as file:
            captions, data = self._captions(file, number), self._image(file, number)
        try:
            return CaptionedImage(self.index.key(number), EncodedPicture(data, where), captions)
        except ClippyError as error:
            raise broken_image(where, error) from error

    def _opened(self, number: int) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise BrokenSampleError(self._where(number), f"cannot be read ({error})") from error

    def _captions(self, file: BinaryIO, number: int) -> tuple[str, ...]:
        _, _, offset, size, is_json = self.index.places[number].tolist()
        where, data = self._where(number), self._at(file, number, offset, size)
        return _json_captions(data, where) if is_json else _text_caption(data, where)

    def _image(self, file: BinaryIO, number: int) -> bytes:
        offset, size, *_ = self.index.places[number].tolist()
        return self._at(file, number, offset, size)

    def _at(self, file: BinaryIO, number: int, offset: int, size: int) -> bytes:
        try:
            file.seek(offset)
            data = file.read(size)
        except OSError as error:
            raise BrokenSampleError(self._where(number), f"cannot be read ({error})") from error
        if len(data) < size:
            raise BrokenSampleError(
                self._where(number), "cannot be read (the shard has become shorter since it was indexed)"
            )
        return data

    def _where(self, number: int) -> str:
        return f"{self.name}: {self.index.key(number)}"


class ShardSource:
    """Samples of tar files named by path, brace range (``train-{0000..0099}.tar``) or glob.

    An image is ``KEY.jpg``, ``.jpeg``, ``.png`` or ``.webp``; its caption is ``KEY.txt`` (one, UTF-8) or, where that is
    absent or empty, ``KEY.json`` with ``"captions": [...]`` or ``"caption": "..."``. The key is the member's path up to
    the first dot of its base name, or up to the last one where there is nothing else of that key. A shard that is cut
    short keeps its whole samples. What is not used as it stands is counted in ``notices``. ClippyError where a shard is
    missing, compressed or named twice, or where no shard holds a sample.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        files = local_shards(paths)
        with ThreadPoolExecutor(_THREADS) as threads:
            indices = list(threads.map(kept_index, files))
        self._shards = [Shard(path, str(path), index) for path, index in zip(files, indices, strict=True)]
        self.notices = Notices(notice for shard in self._shards for notice in shard.index.named(shard.name))
        self._name_copies()
        self._ends = np.array([len(index) for index in indices]).cumsum()
        if not len(self):
            found = sum((index.extensions for index in indices), Counter[str]())
            kinds = ", ".join(f"{count} .{kind}" for kind, count in found.most_common(6)) or "no files"
            raise ClippyError(
                f"No sample in {len(files)} shards ({', '.join(paths)}): {LAYOUT}, found {kinds}",
                "; ".join(map(str, islice(self.notices, 3))) or None,
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order given."""
        return tuple(self._shards)

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """How many samples each shard holds, shards in the order given."""
        return tuple(len(shard.index) for shard in self._shards)

    def key(self, index: int) -> str:
        """The key of the sample at ``index``; another shard may have the same."""
        shard, number = self._place(index)
        return shard.index.key(number)

    def shard_path(self, index: int) -> Path:
        """The tar file that holds the sample at ``index``."""
        return self._place(index)[0].path

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the sample at ``index``, without its image; BrokenSampleError where there is none."""
        shard, number = self._place(index)
        return shard.captions(number)

    def image_bytes(self, index: int) -> bytes:
        """The image of the sample at ``index`` as it is stored; BrokenSampleError where it cannot be read."""
        shard, number = self._place(index)
        return shard.image_bytes(number)

    def read(self, index: int) -> CaptionedImage:
        """The sample at ``index``, shards in the order given and samples in the order of their shard."""
        shard, number = self._place(index)
        return shard.read(number)

    def describe(self) -> str:
        """One line for the training log."""
        first, last = self._shards[0].path.name, self._shards[-1].path.name
        names = first if len(self._shards) == 1 else f"{first} to {last}"
        return f"{len(self)} samples in {len(self._shards)} shards ({names})"

    def _name_copies(self) -> None:
        """Count the shards that have the keys and sizes of another one: all their samples come twice."""
        seen: set[bytes] = set()
        for shard in self._shards:
            fingerprint = shard.index.fingerprint()
            if len(shard.index) and fingerprint in seen:
                self.notices.assumed("shard", "has all keys and sizes of another one; both are used", shard.name)
            seen.add(fingerprint)

    def _place(self, index: int) -> tuple[Shard, int]:
        """The shard of the sample at ``index``, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = int(np.searchsorted(self._ends, index, "right"))
        return self._shards[place], index - int(self._ends[place - 1] if place else 0)


def _text_caption(data: bytes, where: str) -> tuple[str, ...]:
    try:
        caption = one_line(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BrokenSampleError(where, f"caption is not UTF-8 ({error})") from error
    _refuse_empty(caption, where)
    return (caption,)


def _refuse_empty(caption: str, where: str) -> None:
    if not caption:
        raise BrokenSampleError(where, "caption is empty")
    if "\0" in caption:
        raise BrokenSampleError(where, "caption has NUL characters; it may be UTF-16, save it as UTF-8")
    if stands_for_nothing(caption):
        raise BrokenSampleError(where, f"caption is {caption!r}, which stands for an empty field")


def _json_captions(data: bytes, where: str) -> tuple[str, ...]:
    try:
        captions, _ = captions_of_json(data)  # what is not among them was counted when the shard was indexed
    except ValueError as error:
        raise BrokenSampleError(where, f"caption file is not JSON ({error})") from error
    if not captions:
        raise BrokenSampleError(where, 'JSON holds no caption: needs "captions": ["..."] or "caption": "..."')
    return captions
