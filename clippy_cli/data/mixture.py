"""Several caption sources as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clippy_cli.data.captions import CaptionedImage, CaptionSource
from clippy_cli.notices import Notices


@dataclass(frozen=True)
class MixturePart:
    """One source of a mixture, and how often each of its samples is there."""

    source: CaptionSource
    repeat: int = 1


class MixtureSource:
    """The samples of all parts, one part after the other, each part ``repeat`` times in a row."""

    def __init__(self, parts: Sequence[MixturePart]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part.source) * part.repeat for part in self.parts])

    @property
    def notices(self) -> Notices:
        return Notices(notice for part in self.parts for notice in part.source.notices)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> CaptionedImage:
        """Sample ``index``; IndexError beyond the last."""
        source, number = self._place(index)
        return source.read(number)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of sample ``index``, without its image; IndexError beyond the last."""
        source, number = self._place(index)
        return source.captions(number)

    def _place(self, index: int) -> tuple[CaptionSource, int]:
        """The source of sample ``index``, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self.parts[number]
        begin = int(self._ends[number]) - len(part.source) * part.repeat
        return part.source, (index - begin) % len(part.source)

    def describe(self) -> str:
        """One line for the training log."""
        times = (f" x {part.repeat}" if part.repeat > 1 else "" for part in self.parts)
        return " + ".join(f"{part.source.describe()}{many}" for part, many in zip(self.parts, times, strict=True))
