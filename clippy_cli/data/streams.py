"""Shards behind URLs as an endless stream of samples that restarts exactly at any of its positions.

Shards are fetched whole, in the background, and read from a local folder by the loader's workers. The order of samples
is a function of the seed and the shards' contents alone; a shard that cannot be fetched is left out while that lasts.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.captions import BrokenSampleError, CaptionedImage
from clippy_cli.data.fetching import Fetcher, ShardFolder, ShardUnavailableError, check_driver, shown
from clippy_cli.data.shard_names import remote_shards
from clippy_cli.data.shards import Shard
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notice, NoticeKind, Notices

_SHARDS, _WINDOW = 101, 102  # keep these draws apart from others of the same seed
_FAILED_IN_A_ROW = 16
_log = logging.getLogger(__name__)


class Position(NamedTuple):
    """How far a process is: full passes, then windows of this pass, then samples of this window."""

    passes: int = 0
    window: int = 0
    offset: int = 0


START = Position()


class StreamSource:
    """About ``samples`` samples of shards behind URLs, in webdataset's layout (see :class:`ShardSource`).

    Each pass permutes the shards and deals them to the processes; of each process's shards, ``window`` at a time are
    shuffled together. A sample's number is ``shard << 32 | place in the shard``. Shards are kept in the folder
    ``cache``, of at most ``cache_bytes``, which the ``sharers`` processes of one machine have in common.

    ClippyError for a URL without driver; later for a full disk, a cache that is too small, or shards of which none
    can be fetched.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        samples: int,
        cache: Path,
        cache_bytes: int,
        window: int,
        seed: int,
        sharers: int = 1,
    ) -> None:
        self._urls = remote_shards(urls)
        for url in {url.partition("://")[0]: url for url in self._urls}.values():
            check_driver(url)
        self._samples, self._window, self._seed, self._sharers = samples, window, seed, sharers
        self._folder = ShardFolder(cache, cache_bytes)
        self.notices = Notices()  # more may come while shards are drawn
        for url in self._folder.look_up(self._urls):
            self.notices.assumed("shard", "changed since it was fetched, and fetched again", shown(url))
        self._noted: set[str] = set()
        self._opened: OrderedDict[int, Shard] = OrderedDict()
        self._fetcher: Fetcher | None = None

    def __len__(self) -> int:
        return self._samples

    @property
    def names(self) -> tuple[str, ...]:
        """The shards' URLs as messages show them."""
        return tuple(map(shown, self._urls))

    @property
    def versions(self) -> tuple[str, ...]:
        """What the servers said of each shard: checksum, time and size; empty where they name none of these."""
        return tuple(self._folder.versions.get(url, "") for url in self._urls)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetcher": None, "_opened": OrderedDict()}

    def describe(self) -> str:
        """One line for the training log."""
        first, last = shown(self._urls[0]), shown(self._urls[-1])
        names = first if len(self._urls) == 1 else f"{first} to {last}"
        return f"{self._samples} samples in {len(self._urls)} shards ({names}), fetched into {self._folder.folder}"

    def check_processes(self, size: int) -> None:
        """ClippyError where there are fewer shards than processes; a notice is made where they do not divide."""
        count = len(self._urls)
        if count < size:
            raise ClippyError(
                f"{count} shards cannot feed {size} processes: each needs shards of its own",
                f"Start at most {count} processes, or pack again: clippy data pack --shards {size} (or a multiple).",
            )
        if count % size:
            reason = f"left out of each pass, other ones each time: {size} processes share {count} evenly"
            self._note([Notice(NoticeKind.IGNORED, "shard", reason, count % size, ())], reason)

    def draws(self, rank: int, size: int, start: Position = START) -> Iterator[tuple[int, int, Position]]:
        """The samples of process ``rank`` of ``size`` from ``start`` on, without end: number, pass, position after it.

        The next window's shards are fetched while the present ones are used.
        """
        self.check_processes(size)
        share = len(self._urls) // size
        windows = -(-share // self._window)
        if start.window >= windows or min(start) < 0:
            raise ClippyError(
                f"The stream has no {start}: a pass has {windows} windows for each of {size} processes",
                "Continue with the shards, window and number of processes that the run was started with.",
            )
        fetcher = self._fetcher = self._fetcher or Fetcher(lambda number: self._folder.fetch(self._urls[number]))
        at, previous, failures, largest = start, list[int](), list[str](), 0
        while True:
            beyond = Position(at.passes, at.window + 1) if at.window + 1 < windows else Position(at.passes + 1)
            present, following = (self._shards_of(rank, size, share, place) for place in (at, beyond))
            fetcher.want(present)
            numbers: list[NDArray[np.int64]] = []
            for number in present:
                shard = self._taken(fetcher, number, failures)
                if shard is not None:
                    numbers.append((number << 32) + np.arange(len(shard.index)))
                    largest = max(largest, self._folder.size(self._urls[number]))
                    self._check_room(largest, share)
                elif len(failures) >= min(_FAILED_IN_A_ROW, share):
                    raise ClippyError(
                        f"{len(failures)} shards in a row could not be used; the first: {failures[0]}",
                        "Check the URLs, the network and the credentials; then continue with --resume.",
                    )
            missing = sum(not self._folder.size(self._urls[number]) for number in following)
            keep = {self._folder.path(self._urls[number]) for number in (*previous, *present, *following)}
            self._folder.make_room(missing * largest, keep)
            fetcher.want(following)
            window = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
            rng = np.random.default_rng([_WINDOW, self._seed, at.passes, rank, at.window])
            order = rng.permutation(window).tolist()
            for place in range(at.offset, len(order)):
                after = at._replace(offset=place + 1) if place + 1 < len(order) else beyond
                yield order[place], at.passes, after
            previous, at = present, beyond

    def first(self, count: int, rank: int, size: int) -> list[int]:
        """The first ``count`` sample numbers of the first pass of this process, or fewer where it has fewer."""
        taken = itertools.islice(self.draws(rank, size), count)
        return [sample for sample, _, _ in itertools.takewhile(lambda draw: draw[1] == 0, taken)]

    def read(self, index: int) -> CaptionedImage:
        """The sample of this number; its shard is fetched again if it is gone from the folder."""
        number, place = index >> 32, index & 0xFFFFFFFF
        shard = self._open(number)
        try:
            return self._read_from(shard, place)
        except BrokenSampleError:
            if shard.path.exists():
                raise
        del self._opened[number]
        return self._read_from(self._open(number), place)

    def substitute(self, index: int, rng: np.random.Generator) -> int:
        """A sample that ``rng`` draws from the same shard, or from another one where that is gone."""
        number = index >> 32
        for _ in range(_FAILED_IN_A_ROW):
            try:
                shard = self._open(number)
                if len(shard.index):
                    return (number << 32) + int(rng.integers(len(shard.index)))
            except BrokenSampleError as error:
                _log.info("%s", error)
            number = int(rng.integers(len(self._urls)))
        return index

    def _read_from(self, shard: Shard, place: int) -> CaptionedImage:
        if place >= len(shard.index):
            raise BrokenSampleError(shard.name, f"has no sample {place} any more")
        return shard.read(place)

    def _open(self, number: int) -> Shard:
        if number not in self._opened:
            try:
                self._opened[number] = self._folder.fetch(self._urls[number])
            except ShardUnavailableError as error:
                raise BrokenSampleError(shown(self._urls[number]), str(error)) from error
            if len(self._opened) > 3 * self._window:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        return self._opened[number]

    def _shards_of(self, rank: int, size: int, share: int, at: Position) -> list[int]:
        """The shards of one window of one process."""
        order = np.random.default_rng([_SHARDS, self._seed, at.passes]).permutation(len(self._urls))
        mine: list[int] = order[rank::size][:share].tolist()
        return mine[at.window * self._window : (at.window + 1) * self._window]

    def _taken(self, fetcher: Fetcher, number: int, failures: list[str]) -> Shard | None:
        """The shard, or None where it has nothing to give; ``failures`` are those since the last that had."""
        try:
            shard = fetcher.take(number)
        except ShardUnavailableError as error:
            failures.append(str(error))
            self._note([Notice(NoticeKind.SKIPPED, "shard", "cannot be fetched or used", 1, (str(error),))], str(error))
            return None
        self._note(shard.index.named(shard.name), shard.name)
        if not len(shard.index):
            failures.append(f"{shard.name}: holds no sample")
            return None
        failures.clear()
        return shard

    def _check_room(self, largest: int, share: int) -> None:
        count = min(3 * min(self._window, share) * self._sharers, len(self._urls))
        if count * largest > self._folder.limit:
            raise ClippyError(
                f"The cache of {self._folder.limit / 1e9:.3g} GB cannot hold the {count} shards of up to "
                f"{largest / 1e9:.3g} GB that are in use at once: three windows of {self._window}"
                + (f" for each of {self._sharers} processes" if self._sharers > 1 else ""),
                f"Set data.source.cache_gb above {count * largest / 1e9:.3g}, or a smaller data.source.window.",
            )

    def _note(self, notices: Iterable[Notice], about: str) -> None:
        """Count and log what is known ``about`` something, the first time that it shows."""
        if about in self._noted:
            return
        self._noted.add(about)
        for notice in notices:
            self.notices.update([notice])
            _log.log(logging.INFO if notice.kind is NoticeKind.IGNORED else logging.WARNING, "%s", notice)
