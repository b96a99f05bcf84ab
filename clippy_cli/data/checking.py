"""What captioned data holds before a model is trained on it: what is broken, how long, how large, how often the same.

Distributions are kept as counts of each value and duplicates as 64-bit hashes, so that ten million samples fit.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.caption_text import oddity
from clippy_cli.data.captions import BrokenSampleError, CaptionSource, map_in_order
from clippy_cli.data.images import image_format
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

LONG_WORDS = 60  # with 1.25 tokens a word, the 75 that a text tower of 77 has for words; Sentence-T5 reads 256
SMALL_SIDE = 224
EXAMPLES = 5

_FLAT = 8  # a thumbnail whose greys, 0 to 255, differ by less has no pattern to compare


class CheckedSource(CaptionSource, Protocol):
    """A caption source whose keys, captions and image bytes can be had apart."""

    def key(self, index: int) -> str: ...

    def captions(self, index: int) -> tuple[str, ...]: ...

    def image_bytes(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class Distribution:
    """Order statistics of integers, each one of the values (nearest rank)."""

    minimum: int
    median: int
    p95: int
    maximum: int


@dataclass(frozen=True)
class Repeats:
    """``count`` of what came before already; ``examples`` pairs the first of them with what it repeats."""

    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CaptionReport:
    """Captions of the whole samples.

    Attributes:
        words, characters: of a caption; words are what blanks part.
        long: captions of more than ``LONG_WORDS`` words.
        repeated: captions that stand word for word at another place too, the first not counted; ``most_repeated`` gives
            the most frequent ones and how often each stands.
    """

    count: int
    per_image: Distribution
    words: Distribution
    characters: Distribution
    long: int
    repeated: int
    most_repeated: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ImageReport:
    """Images of the whole samples, upright.

    Attributes:
        short_side, long_side: in pixels.
        small: images whose short side is below ``SMALL_SIDE``.
        formats: images of each format.
        exact: images whose encoded bytes are those of another.
        near: images with other bytes but equal 64-bit dHash: alike at 9x8 gray pixels; uniform images left out.
    """

    bytes: int
    short_side: Distribution
    long_side: Distribution
    small: int
    formats: dict[str, int]
    exact: Repeats
    near: Repeats


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        source: what was read, in words.
        samples, checked: how many there are and how many were looked at.
        shards: how many; None for tables and folders. ``shard_samples`` is how many samples they hold.
        notices: what was not used as it stands, found while the source was indexed; captions of shards that are odd.
        rows, doubtful: of a table, and how many of them do not fit its header; None where there is no table.
        broken: samples that training would skip; ``broken_examples`` names the first.
        captions, images: None where no sample is whole, or images were not asked for.
    """

    source: str
    samples: int
    checked: int
    shards: int | None
    shard_samples: Distribution | None
    notices: Notices
    rows: int | None
    doubtful: int | None
    broken: int
    broken_examples: tuple[str, ...]
    captions: CaptionReport | None
    images: ImageReport | None

    @property
    def faulty(self) -> bool:
        """Whether anything is broken, left out or doubtful."""
        return bool(self.broken or self.doubtful or self.notices.incomplete)

    def feeds(self, processes: int) -> bool:
        """Whether so many training processes get at least one shard each, as they must when shards are streamed."""
        return self.shards is None or self.shards >= processes


def check_captioned_data(
    source: CheckedSource,
    *,
    images: bool = True,
    limit: int | None = None,
    workers: int = 2,
    on_progress: Callable[[], None] | None = None,
) -> CheckReport:
    """Read every sample of ``source``, or ``limit`` spread evenly over it; with ``images`` decode every image too.

    ``workers`` threads read; ``on_progress`` is called once a sample.
    """
    count = len(source)
    checked = count if limit is None else min(limit, count)
    chosen = np.arange(checked) * count // checked
    tally = _Tally(checked)
    notices = Notices(source.notices)
    named = isinstance(source, ShardSource)  # the others have read all captions already
    for place, found in enumerate(map_in_order(partial(_look, source, images), chosen.tolist(), workers)):
        tally.add(place, found)
        if named and not isinstance(found, str):
            for reason in filter(None, map(oddity, found.captions)):
                notices.assumed("caption", reason, source.key(int(chosen[place])))
        if on_progress is not None:
            on_progress()
    sizes = source.shard_sizes if isinstance(source, ShardSource) else None
    return CheckReport(
        source=source.describe(),
        samples=count,
        checked=checked,
        shards=None if sizes is None else len(sizes),
        shard_samples=None if sizes is None else _distribution(Counter(sizes)),
        notices=notices,
        rows=source.rows if isinstance(source, TableSource) else None,
        doubtful=source.doubtful if isinstance(source, TableSource) else None,
        broken=tally.broken,
        broken_examples=tuple(tally.broken_examples),
        captions=tally.caption_report(lambda place: source.captions(int(chosen[place]))),
        images=tally.image_report(lambda place: source.key(int(chosen[place]))) if images else None,
    )


class _ImageFacts(NamedTuple):
    height: int
    width: int
    format: str
    bytes: int
    digest: int
    pattern: int


class _Facts(NamedTuple):
    captions: tuple[str, ...]
    image: _ImageFacts | None


def _look(source: CheckedSource, images: bool, index: int) -> _Facts | str:
    """One sample as training reads it; where and why, if it is broken."""
    try:
        if not images:
            return _Facts(source.captions(index), None)
        sample = source.read(index)
        pixels = sample.image
        data = source.image_bytes(index)
    except BrokenSampleError as error:
        return str(error)
    except ClippyError as error:
        return error.message
    height, width = pixels.shape[:2]
    form = image_format(data) or "other"
    return _Facts(sample.captions, _ImageFacts(height, width, form, len(data), _digest(data), difference_hash(pixels)))


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """(H,W,3) uint8 -> 64 bits: whether each of 8x8 grey cells is darker than its right neighbour (dHash).

    0 for a uniform image, which looks like every other one.
    """
    grey = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    cells = np.asarray(grey, dtype=np.int16)  # (8,9)
    if np.ptp(cells) < _FLAT:
        return 0
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


class _Tally:
    """Counts and hashes of the samples seen so far."""

    def __init__(self, samples: int) -> None:
        self.broken = self.long = self.small = self.bytes = 0
        self.broken_examples: list[str] = []
        self._per_sample = np.zeros(samples, np.int32)
        self._caption_digests = array("Q")
        self._words, self._characters = Counter[int](), Counter[int]()
        self._short, self._long = Counter[int](), Counter[int]()
        self._formats = Counter[str]()
        self._digests, self._patterns = np.zeros((2, samples), np.uint64)

    def add(self, place: int, found: _Facts | str) -> None:
        if isinstance(found, str):
            self.broken += 1
            if len(self.broken_examples) < EXAMPLES:
                self.broken_examples.append(found)
            return
        self._per_sample[place] = len(found.captions)
        for caption in found.captions:
            words = len(caption.split())
            self._words[words] += 1
            self._characters[len(caption)] += 1
            self.long += words > LONG_WORDS
            self._caption_digests.append(_digest(caption.encode("utf-8", "surrogatepass")))
        if found.image is not None:
            image = found.image
            self._short[min(image.height, image.width)] += 1
            self._long[max(image.height, image.width)] += 1
            self._formats[image.format] += 1
            self.bytes += image.bytes
            self._digests[place], self._patterns[place] = image.digest, image.pattern

    def caption_report(self, captions: Callable[[int], tuple[str, ...]]) -> CaptionReport | None:
        if not self._words:
            return None
        values, first, counts = np.unique(
            np.frombuffer(self._caption_digests, np.uint64), return_index=True, return_counts=True
        )
        ends = self._per_sample.cumsum()
        most: list[tuple[str, int]] = []
        for which in np.argsort(-counts, kind="stable")[:EXAMPLES].tolist():
            if counts[which] > 1:
                place = int(np.searchsorted(ends, first[which], side="right"))
                text = captions(place)[int(first[which] - ends[place])]  # counted from the sample's last caption
                most.append((text, int(counts[which])))
        return CaptionReport(
            count=self._words.total(),
            per_image=_distribution(Counter(self._per_sample[self._per_sample > 0].tolist())),
            words=_distribution(self._words),
            characters=_distribution(self._characters),
            long=self.long,
            repeated=int(counts.sum()) - len(values),
            most_repeated=tuple(most),
        )

    def image_report(self, key: Callable[[int], str]) -> ImageReport | None:
        if not self._short:
            return None
        later, earlier = _repeats(self._digests)
        unlike = self._patterns.copy()
        unlike[later] = 0
        return ImageReport(
            bytes=self.bytes,
            short_side=_distribution(self._short),
            long_side=_distribution(self._long),
            small=sum(number for side, number in self._short.items() if side < SMALL_SIDE),
            formats=dict(self._formats.most_common()),
            exact=_named(later, earlier, key),
            near=_named(*_repeats(unlike), key),
        )


def _repeats(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places whose hash, not 0, stands at an earlier place already, sorted; and the last such place for each."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
    later, earlier = order[same + 1], order[same]
    by_place = np.argsort(later)
    return later[by_place], earlier[by_place]


def _named(later: NDArray[np.int64], earlier: NDArray[np.int64], key: Callable[[int], str]) -> Repeats:
    pairs: Iterable[tuple[int, int]] = zip(later[:EXAMPLES].tolist(), earlier[:EXAMPLES].tolist(), strict=True)
    return Repeats(len(later), tuple((key(place), key(before)) for place, before in pairs))


def _distribution(counts: Counter[int]) -> Distribution:
    values = np.array(sorted(counts))
    ends = np.cumsum([counts[value] for value in values.tolist()])
    ranks = [max(1, -(-int(ends[-1]) * percent // 100)) for percent in (0, 50, 95, 100)]
    return Distribution(*values[np.searchsorted(ends, ranks)].tolist())


def _digest(data: bytes) -> int:
    """64 bits, never 0."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") or 1
