"""Shards fetched whole from URLs into a folder of bounded size, in the background where asked for."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from clippy_cli.data.index_cache import kept_index
from clippy_cli.data.shard_versions import look_up
from clippy_cli.data.shards import Shard
from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command

TRIES = 8  # a minute and a half: a shard that is left out changes the order of samples

_THREADS = 8
_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF = 32
_FIRST_TRIES = 3  # where nothing was ever fetched, the URL may be mistyped
_ABANDONED_SECONDS = 3600
_OURS = re.compile(r"clippy-[0-9a-f]{32}\.tar")  # the folder may hold tar files of the user
_PERMANENT = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
_DRIVERS = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "abfs": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
_log = logging.getLogger(__name__)


class ShardUnavailableError(Exception):
    """A shard that cannot be fetched or used, while others may; says why."""


def check_driver(url: str) -> None:
    """ClippyError where no driver for the URL's protocol is installed."""
    import fsspec

    protocol = url.partition("://")[0]
    driver = _DRIVERS.get(protocol, f"PACKAGE, the fsspec driver of {protocol}://")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise ClippyError(
            f"{shown(url)}: {protocol}:// needs a driver that is not installed ({error})",
            install_command("http") if driver == "aiohttp" else f"pip install {driver}",
        ) from error
    except ValueError as error:
        raise ClippyError(
            f"{shown(url)}: the protocol {protocol}:// is not known", "Such as https://, s3://, gs:// and hf:// are."
        ) from error


def shown(url: str) -> str:
    """The URL for messages: without a password, and without a query, which may be a signature."""
    return re.sub(r"//[^/@]*@", "//", url).partition("?")[0]


class ShardFolder:
    """Fetched shards, by the hash of URL and version, each with its index beside it; processes may share one folder.

    ``versions`` are what servers said at the beginning (see :meth:`look_up`); another version is another file, so that
    a shard that was replaced there is fetched again, and one that is in use is not replaced.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.versions: dict[str, str] = {}

    def look_up(self, urls: Sequence[str]) -> list[str]:
        """Ask the servers for the versions of all shards; returns those that have changed since they were fetched.

        Where a server does not answer, the version that was fetched last counts.
        """
        found = look_up(urls, _options(urls[0]))
        changed = []
        for url in urls:
            fetched = self._fetched(url)
            if url in found and fetched and fetched != found[url]:
                changed.append(url)
            if version := found.get(url) or fetched:
                self.versions[url] = version
        return changed

    def path(self, url: str) -> Path:
        """Where the shard is, once fetched."""
        version = self.versions.get(url)
        return self.folder / f"clippy-{_digits(url if version is None else f'{url} {version}')}.tar"

    def _fetched(self, url: str) -> str:
        """The version that was fetched last; empty where none was, or none was named."""
        try:
            return (self.folder / f"clippy-{_digits(url)}.version").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def fetch(self, url: str) -> Shard:
        """The shard, fetched if it is not there.

        ShardUnavailableError where all tries fail or it is no plain tar, ClippyError where the disk is full.
        """
        path, name = self.path(url), shown(url)
        for _ in range(TRIES):
            if not path.is_file():
                self._download_with_patience(url, path)
            try:
                with suppress(PermissionError):  # another user's, in a shared folder
                    os.utime(
                        path, ns=(time.time_ns(), path.stat().st_mtime_ns)
                    )  # used now; its index goes by the other
                return Shard(path, name, kept_index(path, name, path.with_suffix(".index")))
            except (OSError, ClippyError) as error:
                if path.is_file():
                    raise ShardUnavailableError(
                        error.message if isinstance(error, ClippyError) else str(error)
                    ) from error
        raise ShardUnavailableError(f"{name}: other processes remove it from {self.folder} as soon as it is there")

    def size(self, url: str) -> int:
        """Bytes of a fetched shard; 0 where it is not there."""
        try:
            return self.path(url).stat().st_size
        except FileNotFoundError:
            return 0

    def make_room(self, room: int, keep: Collection[Path]) -> None:
        """Remove the shards that were not used for longest, but none in ``keep``, so that ``room`` bytes fit."""
        found = []
        for path in self.folder.glob("*.tar"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if _OURS.fullmatch(path.name):
                found.append((stat.st_atime_ns, path, stat.st_size))
        total = sum(size for _, _, size in found)
        for _, path, size in sorted(found):
            if total + room <= self.limit:
                break
            if path not in keep:
                path.unlink(missing_ok=True)
                path.with_suffix(".index").unlink(missing_ok=True)
                total -= size
        for path in self.folder.glob(".clippy-*.part"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue

    def _download_with_patience(self, url: str, path: Path) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                self._download(url, path)
                _log.debug("%s: fetched to %s", shown(url), path)
                return
            except ClippyError:
                raise
            except Exception as error:  # drivers raise what they like
                why = (str(error) or type(error).__name__).replace(url, shown(url))
                tries = TRIES if any(self.folder.glob("clippy-*.tar")) else _FIRST_TRIES
                if isinstance(error, _PERMANENT) or attempt >= tries:
                    raise ShardUnavailableError(f"{shown(url)}: cannot be fetched ({why})") from error
                _log.info("%s: try %d of %d failed (%s)", shown(url), attempt, tries, why)
                time.sleep(_BACKOFF_SECONDS * min(2 ** (attempt - 1), _LONGEST_BACKOFF))

    def _download(self, url: str, path: Path) -> None:
        from fsspec.core import url_to_fs

        part = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.touch()
        except OSError as error:
            raise ClippyError(
                f"{self.folder}: fetched shards cannot be put there ({error.strerror or error})",
                "Choose another folder with data.source.cache.",
            ) from error
        try:
            filesystem, remote = url_to_fs(url, **_options(url))
            filesystem.get_file(remote, str(part))
            if version := self.versions.get(url):
                (self.folder / f"clippy-{_digits(url)}.version").write_text(version, encoding="utf-8")
            part.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ClippyError(
                f"{self.folder}: the disk is full while {shown(url)} is fetched",
                "Free some space, lower data.source.cache_gb, or choose another folder with data.source.cache.",
            ) from error
        finally:
            part.unlink(missing_ok=True)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _options(url: str) -> dict[str, Any]:
    """A large shard may take longer than the five minutes that a transfer gets by default, but never stand still."""
    if not url.startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


class Fetcher:
    """Numbered shards, fetched by daemon threads in the order they are wanted; for one thread of one process."""

    def __init__(self, fetch: Callable[[int], Shard]) -> None:
        self._fetch = fetch
        self._queue: queue.SimpleQueue[tuple[int, Future[Shard]]] = queue.SimpleQueue()
        self._futures: dict[int, Future[Shard]] = {}

    def want(self, numbers: Iterable[int]) -> None:
        """Start to fetch what is not wanted yet."""
        new = [number for number in numbers if number not in self._futures]
        for number in new:
            self._futures[number] = Future()
            self._queue.put((number, self._futures[number]))
        for _ in range(min(_THREADS, len(new))):
            threading.Thread(target=self._work, daemon=True, name="clippy-fetch").start()

    def take(self, number: int) -> Shard:
        """A wanted shard, once it is there; raises what fetching raised. It is not wanted any more then."""
        return self._futures.pop(number).result()

    def _work(self) -> None:
        while True:
            try:
                number, future = self._queue.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(self._fetch(number))
            except BaseException as error:  # for whoever takes it
                future.set_exception(error)
