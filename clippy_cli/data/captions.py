"""What every source of image-caption pairs looks like to the training loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clippy_cli.errors import ClippyError


@dataclass(frozen=True)
class CaptionedImage:
    """One sample: a key that names it in messages, an image (H,W,3) uint8 RGB, and at least one caption."""

    key: str
    image: NDArray[np.uint8]
    captions: tuple[str, ...]


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
    def problems(self) -> tuple[str, ...]:
        """What was found wrong while the source was indexed, a sentence each."""
        ...

    def __len__(self) -> int:
        """How many samples there are; broken ones may be among them."""
        ...

    def read(self, index: int) -> CaptionedImage:
        """The sample at ``index``; BrokenSampleError where it cannot be used."""
        ...

    def describe(self) -> str:
        """One line for the training log: what kind of source, from where, how many samples."""
        ...


def broken_image(where: str, error: ClippyError) -> BrokenSampleError:
    """The broken sample that an unreadable image makes; ``where`` may start the error's message already."""
    return BrokenSampleError(where, error.message.removeprefix(f"{where}: "))
