"""Captioned images to measure retrieval on, read from the shards that training reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clippy_cli.data.benchmarks.base import RetrievalSet, SetInfo
from clippy_cli.data.captions import BrokenSampleError, CaptionedImage
from clippy_cli.data.pictures import ArrayPicture
from clippy_cli.data.shard_names import shards_in
from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_folder


def open_captioned(pattern: str) -> RetrievalSet:
    """Shards named by a tar file, a folder of tar files, a brace range or a glob; see :class:`ShardSource`.

    The set is called as the pattern's last part without ``.tar``. What is wrong with the shards is in its ``notices``;
    ClippyError where there is no shard, or no sample in them.
    """
    path, notices = Path(pattern), Notices()
    shards = [pattern]
    if is_folder(path):
        shards = [str(shard) for shard in shards_in(path, notices)]
        if not shards:
            found = "; ".join(map(str, notices))
            raise ClippyError(f"{path}: holds no shards (*.tar)", found or "Give the folder that holds the tar files.")
    source = ShardSource(shards)
    opened = _Captioned(source, path)
    opened.notices.update([*source.notices, *notices])
    return opened


class _Captioned(RetrievalSet):
    def __init__(self, source: ShardSource, path: Path) -> None:
        name = path.resolve().name.removesuffix(".tar")
        self.info = SetInfo(name, f"{name}, captioned images", path if path.is_dir() else path.parent)
        self._source = source
        keys = [source.key(index) for index in range(len(source))]
        self._numbered = len(set(keys)) < len(keys)  # shards may repeat each other's keys

    def __len__(self) -> int:
        return len(self._source)

    def key(self, index: int) -> str:
        key = self._source.key(index)
        return f"{index}/{key}" if self._numbered else key

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._source.shard_path(index),)

    def captions(self, index: int) -> tuple[str, ...]:
        with _usable():
            return self._source.captions(index)

    def read(self, index: int) -> CaptionedImage:
        with _usable():
            sample = self._source.read(index)
            picture = ArrayPicture(sample.image)  # decoded here, so that a damaged one shows here
        return CaptionedImage(self.key(index), picture, sample.captions)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except BrokenSampleError as error:
        raise ClippyError(str(error), "Leave it out, or write the shard again.") from error
