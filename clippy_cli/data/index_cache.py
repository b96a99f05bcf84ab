"""Shard indices that are kept on disk, so that a run need not read every header again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from clippy_cli.data.shard_index import MAX_CAPTION_BYTES, MAX_IMAGE_BYTES, ShardIndex, index_shard
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.notices import Notice, NoticeKind
from clippy_cli.regular_files import read_bytes

MAX_BYTES = 1 << 30  # of an index in memory
MIN_BYTES = 4 << 20  # below, reading the headers takes a few milliseconds

_FORMAT = 4
_log = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """Where clippy keeps what it can make again: $CLIPPY_CACHE/KIND, $XDG_CACHE_HOME/clippy/KIND or below ~/.cache."""
    if own := os.environ.get("CLIPPY_CACHE"):
        return Path(own).expanduser() / kind
    root = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(root) / "clippy" / kind


def kept_index(path: Path, name: str | None = None, keep: Path | None = None) -> ShardIndex:
    """The index of a shard, called ``name`` in messages; from the file ``keep`` where that fits, else put there.

    ``keep`` is by default a file of the user's cache folder, for large shards. What cannot be used there is made anew,
    and a folder that cannot be written does no harm; the index of a damaged shard is not kept.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ClippyError(f"{path}: cannot be read ({error})", "Check the file and its permissions.") from error
    identity = f"{_FORMAT}\n{path.absolute()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    if keep is None:
        if stat.st_size < MIN_BYTES:
            return index_shard(path, name)
        keep = cache_folder("shards") / f"{hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]}.index"
    index = _load(keep, identity, stat.st_size)
    _log.debug("%s: its index is %s", name or path, "made" if index is None else f"kept in {keep}")
    if index is None:
        index = index_shard(path, name)
        if index.damage is None:
            _save(keep, identity, index)
    return index


def _save(keep: Path, identity: str, index: ShardIndex) -> None:
    about = {
        "identity": identity,
        "notices": [notice.record() for notice in index.notices],
        "extensions": index.extensions,
    }

    arrays: dict[str, NDArray[Any]] = {
        "places": index.places,
        "keys": np.frombuffer(index.keys, np.uint8),
        "key_ends": index.key_ends,
    }
    data = zlib.compress(safetensors.numpy.save(arrays, {"about": json.dumps(about)}), 1)

    try:
        write_whole(keep, lambda stream: stream.write(data))
    except ClippyError as error:
        _log.info("a shard's index is not kept: %s", error.message)


def _load(keep: Path, identity: str, size: int) -> ShardIndex | None:
    """The index in ``keep``; None where it is none, or not that of the shard of ``size`` bytes."""
    try:
        data = _unpacked(read_bytes(keep))
        arrays = safetensors.numpy.load(data)
        places, keys, key_ends = arrays["places"], arrays["keys"].tobytes(), arrays["key_ends"]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # safetensors' own layout
        about = json.loads(header["__metadata__"]["about"])
        index = ShardIndex(
            places=places,
            keys=keys,
            key_ends=key_ends,
            notices=tuple(map(_notice, about["notices"])),
            extensions=Counter(about["extensions"]),
            damage=None,
        )
        if about["identity"] == identity and _fits(index, size):
            return index
        _log.info("%s is not the index of the shard that it is kept for; it is made anew", keep)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, MemoryError, zlib.error, SafetensorError) as error:
        _log.info("%s: cannot be used (%s); the shard's headers are read again", keep, error)
    return None


def _notice(record: dict[str, Any]) -> Notice:
    texts = {name: str(record[name]) for name in ("unit", "reason", "hint")}
    examples = tuple(map(str, record["examples"]))
    return Notice(kind=NoticeKind(record["kind"]), count=int(record["count"]), examples=examples, **texts)


def _unpacked(data: bytes) -> bytes:
    """What was compressed; ValueError where it would be larger than the index of any shard."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, MAX_BYTES)
    if not unpacker.eof:
        raise ValueError("is cut short, or too large for an index")
    return unpacked


def _fits(index: ShardIndex, size: int) -> bool:
    """Whether every number is one that the headers of a shard of ``size`` bytes can have led to."""
    places, ends = index.places, index.key_ends
    if places.dtype != np.int64 or ends.dtype != np.int64 or places.shape != (len(ends), 5):
        return False
    if not len(ends):
        return not index.keys
    offsets, sizes = places[:, 0:4:2], places[:, 1:4:2]
    return bool(
        (places >= 0).all()
        and (sizes <= [MAX_IMAGE_BYTES, MAX_CAPTION_BYTES]).all()
        and (offsets <= size).all()
        and (offsets + sizes <= size).all()
        and ends[0] > 0
        and (np.diff(ends) > 0).all()
        and ends[-1] == len(index.keys)
    )
