"""Captioned images to measure retrieval on, read from the shards that training reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clippy_cli.data.benchmarks.base import RetrievalSet, SetInfo
from clippy_cli.data.captions import BrokenSampleError, CaptionedImage
from clippy_cli.data.pictures import ArrayPicture
from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ClippyError
from clippy_cli.notices import NoticeKind

_log = logging.getLogger(__name__)


def open_captioned(pattern: str) -> RetrievalSet:
    """Shards named by a tar file, a folder of tar files, a brace range or a glob; see :class:`ShardSource`.

    The set is called as the pattern's last part without ``.tar``. What is wrong with the shards is logged; ClippyError
    where there is no shard, or no sample in them.
    """
    path = Path(pattern)
    shards = [pattern]
    if path.is_dir():
        shards = [str(shard) for shard in sorted(path.glob("*.tar"))]
        if not shards:
            raise ClippyError(f"{path}: holds no shards (*.tar)", "Give the folder that holds the tar files.")
    source = ShardSource(shards)
    for notice in source.notices:
        _log.log(logging.INFO if notice.kind is NoticeKind.IGNORED else logging.WARNING, "%s", notice)
    return _Captioned(source, path)


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
