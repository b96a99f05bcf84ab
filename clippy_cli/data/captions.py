"""What every source of image-caption pairs looks like to the training loader; its samples read in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.images import read_image_bytes
from clippy_cli.data.pictures import Picture
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # items a thread, so that few are in memory that are not soon used


@dataclass(frozen=True)
class CaptionedImage:
    """One sample: a key that names it in messages, a picture, and at least one caption."""

    key: str
    picture: Picture
    captions: tuple[str, ...]

    @property
    def image(self) -> NDArray[np.uint8]:
        """The whole picture (H,W,3) uint8 RGB, decoded anew; ClippyError where it is damaged."""
        return self.picture.pixels()


class BrokenSampleError(Exception):
    """A sample that cannot be used; the loader skips and counts it. Says where it is and why."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(where, why)
        self.where = where
        self.why = why

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class CaptionSource(Protocol):
    """A fixed list of samples that can be read in any order, and from several worker processes."""

    @property
    def notices(self) -> Notices:
        """What was not used as it stands, found while the source was indexed."""
        ...

    def __len__(self) -> int:
        """How many samples there are; broken ones may be among them."""
        ...

    def read(self, index: int) -> CaptionedImage:
        """The sample at ``index``; BrokenSampleError where it cannot be used.

        A damaged image may show only when its pixels are asked for, by a ClippyError that names it.
        """
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the sample at ``index``, without reading its image; BrokenSampleError where it has none."""
        ...

    def describe(self) -> str:
        """One line for the training log: what kind of source, from where, how many samples."""
        ...


def broken_image(where: str, error: ClippyError) -> BrokenSampleError:
    """The broken sample that an unreadable image makes; ``where`` may start the error's message already."""
    return BrokenSampleError(where, error.message.removeprefix(f"{where}: "))


def file_bytes(path: Path) -> bytes:
    """The content of a sample's image file; BrokenSampleError where it cannot be read."""
    try:
        return read_image_bytes(path)
    except ClippyError as error:
        raise broken_image(str(path), error) from error


def map_in_order(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """``function`` over ``items`` in ``workers`` threads, a few items ahead of the one asked for.

    What the function raises is raised where its result would come, and nothing more is begun.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > _AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
