"""What servers say of shards without sending them, so that a shard that was replaced there is noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAX_LOOKED_UP = 20_000  # shards; of more, none is looked up

_THREADS = 32
_FIELDS = (
    ("ETag", "etag", "Content-MD5", "md5Hash", "checksum"),
    ("Last-Modified", "LastModified", "last_modified", "updated", "mtime"),
    ("size", "Size"),
)


def look_up(urls: Sequence[str], options: Mapping[str, Any]) -> dict[str, str]:
    """The versions of those URLs whose server gives one; none where the first one cannot be reached.

    ``options`` are those of the file system. Each version is made of a checksum, the time of modification and the
    size, as far as the server names them.
    """
    if not urls or len(urls) > MAX_LOOKED_UP or not (first := _version(urls[0], options)):
        return {}
    with ThreadPoolExecutor(_THREADS) as pool:
        others = list(pool.map(lambda url: _version(url, options), urls[1:]))
    return {url: version for url, version in zip(urls, [first, *others], strict=True) if version}


def _version(url: str, options: Mapping[str, Any]) -> str:
    from fsspec.core import url_to_fs

    try:
        filesystem, remote = url_to_fs(url, **options)
        found = filesystem.info(remote)
    except Exception:  # drivers raise what they like; fetching says what is wrong
        return ""
    values = [next((str(found[name]) for name in names if found.get(name) is not None), "") for names in _FIELDS]
    return " ".join(values).strip()
