"""Shard indices that are kept on disk, so that a run need not read every header again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clippy_cli.data.shard_index import MAX_CAPTION_BYTES, MAX_IMAGE_BYTES, ShardIndex, index_shard
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole

MIN_BYTES = 4 << 20  # below, reading the headers takes a few milliseconds

_FORMAT = 1
# NumPy reads a header with ast.literal_eval, which CPython 3.11 does not survive in two threads at once.
_ONE_AT_A_TIME = threading.Lock()
_DAMAGES = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    MemoryError,
    SystemError,
    zlib.error,
    zipfile.BadZipFile,
)
_log = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """Where clippy keeps what it can make again: ``$XDG_CACHE_HOME/clippy/KIND``, or below ``~/.cache``."""
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
        keep = cache_folder("shards") / f"{hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]}.npz"
    index = _load(keep, identity, stat.st_size)
    if index is None:
        index = index_shard(path, name)
        if index.damage is None:
            _save(keep, identity, index)
    return index


def _save(keep: Path, identity: str, index: ShardIndex) -> None:
    about = {
        "identity": identity,
        "without_image": index.without_image,
        "without_caption": index.without_caption,
        "repeated": index.repeated,
        "extensions": index.extensions,
    }

    def write(stream: BinaryIO) -> None:
        np.savez_compressed(
            stream,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            places=index.places,
            keys=np.frombuffer(index.keys, np.uint8),
            key_ends=index.key_ends,
        )

    try:
        write_whole(keep, write)
    except ClippyError as error:
        _log.info("a shard's index is not kept: %s", error.message)


def _load(keep: Path, identity: str, size: int) -> ShardIndex | None:
    """The index in ``keep``; None where it is none, or not that of the shard of ``size`` bytes."""
    try:
        with _ONE_AT_A_TIME, keep.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            places, keys, key_ends = arrays["places"], arrays["keys"].tobytes(), arrays["key_ends"]
        index = ShardIndex(
            places=places,
            keys=keys,
            key_ends=key_ends,
            without_image=tuple(about["without_image"]),
            without_caption=tuple(about["without_caption"]),
            repeated=tuple(about["repeated"]),
            extensions=Counter(about["extensions"]),
            damage=None,
        )
        if about["identity"] == identity and _fits(index, size):
            return index
        _log.info("%s is not the index of the shard that it is kept for; it is made anew", keep)
    except FileNotFoundError:
        pass
    except _DAMAGES as error:
        _log.info("%s: cannot be used (%s); the shard's headers are read again", keep, error)
    return None


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
