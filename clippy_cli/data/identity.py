"""What the samples of a source are made of, so that a later run can tell whether the data is still the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.captions import CaptionSource
from clippy_cli.data.class_captions import ClassFolderSource
from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.mixture import MixtureSource
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.streams import StreamSource
from clippy_cli.data.tables import TableSource
from clippy_cli.notices import printable

_NAMED = 3
UNKNOWN = 0  # in place of the hash of a file

_TOGETHER = 1000
_THREADS = 8  # hide the latency of a network file system


class _Files(Protocol):
    def __len__(self) -> int: ...

    def key(self, index: int) -> str: ...

    def path(self, index: int) -> Path: ...

    def captions(self, index: int) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class DataIdentity:
    """Files and their captions, in the order of the source.

    ``hashes`` is (F,2) int64: of what is said of a file (name and captions; of a shard name, keys and sizes), and of
    the file itself (size and time of modification; 0 where these are not known). ``name`` gives the name of one of the
    F. Folders do not count, so that data may be moved.
    """

    hashes: NDArray[np.int64]
    name: Callable[[int], str]

    def digest(self) -> str:
        """Of all of it, as hexadecimal digits."""
        return blake2b(self.hashes.tobytes(), digest_size=16).hexdigest()

    def changes(self, before: NDArray[np.int64]) -> tuple[str, ...]:
        """What differs from the ``hashes`` of an earlier time, such as ``"1 file is modified (a.jpg)"``."""
        if np.array_equal(before, self.hashes):
            return ()
        was, now = before[:, 0], self.hashes[:, 0]
        if len(was) == len(now):
            said = np.flatnonzero(was != now)
            found = [("new, or with other captions", len(said), said)]
            if set(was.tolist()) == set(now.tolist()) and len(said):
                return ("the files come in another order",)
            same_at = np.flatnonzero(was == now)
            modified = same_at[_differ(before[same_at, 1], self.hashes[same_at, 1])]
        else:
            new, gone = np.flatnonzero(~np.isin(now, was)), int((~np.isin(was, now)).sum())
            found = [("new, or with other captions", len(new), new), ("gone, or with other captions", gone, new[:0])]
            _, old_at, new_at = np.intersect1d(was, now, return_indices=True)
            modified = np.sort(new_at[_differ(before[old_at, 1], self.hashes[new_at, 1])])
        is_missing = self.hashes[modified, 1] == _MISSING
        missing, modified = modified[is_missing], modified[~is_missing]
        found += [("modified since", len(modified), modified), ("missing now", len(missing), missing)]
        return tuple(self._said(what, count, places) for what, count, places in found if count)

    def _said(self, what: str, count: int, places: NDArray[np.int64]) -> str:
        names = [printable(self.name(place)) for place in places[:_NAMED].tolist()]
        shown = f" ({', '.join(names)}{', ...' if count > len(names) else ''})" if names else ""
        return f"{count:,} {'file is' if count == 1 else 'files are'} {what}{shown}"


def _differ(before: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where two files are known and not the same."""
    differ: NDArray[np.bool_] = (before != UNKNOWN) & (now != UNKNOWN) & (before != now)
    return differ


def identify(source: CaptionSource | StreamSource) -> DataIdentity:
    """The identity of a source: every file is looked up, none is read.

    Of shards behind URLs it is what their servers say of them, and of generated scenes their description.
    """
    match source:
        case MixtureSource():
            return joined([identify(part.source) for part in source.parts])
        case ShardSource():
            shards = source.shards
            listed = [(_hash(s.path.name, s.index.fingerprint().hex()), _stamp(s.path)) for s in shards]
            return DataIdentity(_array(listed), lambda index: shards[index].name)
        case TableSource() | FolderSource() | ClassFolderSource():
            return DataIdentity(_of_files(source), source.key)
        case StreamSource():
            urls = source.names
            listed = [
                (_hash(url), _hash(told) if told else UNKNOWN) for url, told in zip(urls, source.versions, strict=True)
            ]
            return DataIdentity(_array(listed), lambda index: urls[index])
        case _:
            return DataIdentity(_array([(_hash(source.describe()), 0)]), lambda _: source.describe())


def outline(source: CaptionSource | StreamSource) -> str:
    """A digest of what the samples are called, shards' places and tables' captions too; no file is looked up."""
    match source:
        case MixtureSource():
            return "".join(outline(part.source) for part in source.parts)
        case ShardSource():
            texts = [shard.index.fingerprint().hex() for shard in source.shards]
        case TableSource() | FolderSource() | ClassFolderSource():
            texts = [f"{source.key(index)}\0{source.captions(index)}" for index in range(len(source))]
        case StreamSource():
            texts = list(source.names)
        case _:
            texts = [source.describe()]
    digest = blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def joined(parts: list[DataIdentity]) -> DataIdentity:
    """Several as one, one after the other."""
    ends = np.cumsum([len(part.hashes) for part in parts])

    def name(index: int) -> str:
        part = int(np.searchsorted(ends, index, side="right"))
        return parts[part].name(index - int(ends[part]) + len(parts[part].hashes))

    return DataIdentity(np.concatenate([part.hashes for part in parts]), name)


def _of_files(source: _Files) -> NDArray[np.int64]:
    starts = range(0, len(source), _TOGETHER)
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(partial(_some_files, source), starts)
        return _array([pair for part in parts for pair in part])


def _some_files(source: _Files, start: int) -> list[tuple[int, int]]:
    return list(_pairs(source, range(start, min(start + _TOGETHER, len(source)))))


def _pairs(source: _Files, indices: range) -> Iterator[tuple[int, int]]:
    for index in indices:
        yield _hash(source.key(index), *source.captions(index)), _stamp(source.path(index))


def _stamp(path: Path) -> int:
    """Of size and time of modification, or of there being no file."""
    try:
        stat = os.stat(path)  # noqa: PTH116 (millions of them)
    except (OSError, ValueError):
        return _MISSING
    return _hash(str(stat.st_size), str(stat.st_mtime_ns))


def _hash(*texts: str) -> int:
    """63 bits, so that they are an int64."""
    return (
        int.from_bytes(blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1
    )


def _array(pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


_MISSING = _hash("missing")
