"""What is done in one piece and becomes one result file: a shard on disk, a shard behind a URL, or a list of photos."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from clippy_cli.bulk.shard_photos import Photos, open_shard
from clippy_cli.data.fetching import Fetcher, ShardFolder, ShardUnavailableError, check_driver, shown
from clippy_cli.data.image_files import is_image_name
from clippy_cli.data.shard_names import local_shards, remote_shards, shards_in
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.recipe.data import is_url
from clippy_cli.regular_files import is_folder
from clippy_cli.reporting.files import output_stems

PHOTOS_A_PART = 4096
_TAR = re.compile(r"\.tar$", re.IGNORECASE)


class Part(Protocol):
    """One piece of the input."""

    @property
    def name(self) -> str:
        """What its result is called, without an ending; no other part has it."""
        ...

    @property
    def source(self) -> str:
        """What messages and the manifest call it."""
        ...

    def facts(self) -> dict[str, Any]:
        """What it was when it was done, such as size and SHA-256, ready for JSON; for the block of :meth:`opened`."""
        ...

    def is_same(self, facts: Mapping[str, Any]) -> bool:
        """Whether it is still what it was; True where that cannot be said."""
        ...

    def opened(self) -> Any:
        """Context manager that gives its :class:`Photos`; ClippyError where there are none to be had."""
        ...

    def close(self) -> None:
        """Called once its result is written."""
        ...


@dataclass(frozen=True)
class LocalShard:
    """A tar file."""

    name: str
    path: Path

    @property
    def source(self) -> str:
        return str(self.path)

    def facts(self) -> dict[str, Any]:
        status = self.path.stat()
        return {"bytes": status.st_size, "modified": status.st_mtime_ns, "sha256": file_digest(self.path)}

    def is_same(self, facts: Mapping[str, Any]) -> bool:
        """By size and time of modification, or by its content where that differs."""
        try:
            status = self.path.stat()
            if status.st_size != facts["bytes"]:
                return False
            return bool(status.st_mtime_ns == facts["modified"] or file_digest(self.path) == facts["sha256"])
        except OSError:
            return True  # gone, but done

    @contextmanager
    def opened(self) -> Iterator[Photos]:
        with open_shard(self.path, self.source) as photos:
            yield photos

    def close(self) -> None:
        """Nothing: it is the user's."""


class FetchedShards:
    """Shards behind URLs, fetched whole into a folder while others are worked on, and removed when they are done."""

    def __init__(self, folder: Path) -> None:
        self._folder = ShardFolder(folder, limit=0)
        self._urls: dict[int, str] = {}
        self._fetcher = Fetcher(lambda number: self._fetch(self._urls[number]))
        self._numbers: dict[str, int] = {}

    def want(self, url: str) -> None:
        """Begin to fetch it."""
        number = self._numbers.setdefault(url, len(self._numbers))
        self._urls[number] = url
        self._fetcher.want([number])

    def take(self, url: str) -> tuple[Path, str]:
        """Its file once it is there, and what the server calls its version, which may be empty; ClippyError."""
        self.want(url)
        try:
            path = self._fetcher.take(self._numbers[url]).path
        except ShardUnavailableError as error:
            raise ClippyError(str(error), "Check the URL, the network and the credentials.") from error
        except ClippyError as error:
            raise ClippyError(error.message, "Free some space in the folder of --out.") from error
        return path, self._folder.versions.get(url, "")

    def remove(self, url: str) -> None:
        """Remove it from the folder."""
        path = self._folder.path(url)
        for file in (path, path.with_suffix(".index")):
            with suppress(OSError):
                file.unlink()

    def _fetch(self, url: str) -> Any:
        self._folder.look_up([url])
        return self._folder.fetch(url)


class RemoteShard:
    """A tar file behind a URL."""

    def __init__(self, name: str, url: str, fetched: FetchedShards) -> None:
        self.name, self._url, self._fetched = name, url, fetched
        self._facts: dict[str, Any] = {}

    @property
    def source(self) -> str:
        return shown(self._url)

    def facts(self) -> dict[str, Any]:
        """Size, digest and the server's version."""
        return self._facts

    def is_same(self, facts: Mapping[str, Any]) -> bool:
        """True: servers are not asked about shards that are done."""
        return True

    def prefetch(self) -> None:
        """Begin to fetch it, in the background."""
        self._fetched.want(self._url)

    @contextmanager
    def opened(self) -> Iterator[Photos]:
        path, version = self._fetched.take(self._url)
        with open_shard(path, self.source) as photos:
            self._facts = {"bytes": path.stat().st_size, "version": version, "sha256": file_digest(path)}
            yield photos

    def close(self) -> None:
        self._fetched.remove(self._url)


@dataclass(frozen=True)
class PhotoList:
    """Up to ``PHOTOS_A_PART`` photos in files of their own; the keys are their paths."""

    name: str
    paths: tuple[Path, ...]

    @property
    def source(self) -> str:
        return f"{self.name} ({self.paths[0]} to {self.paths[-1]})"

    def facts(self) -> dict[str, Any]:
        """Their number, and a digest of names and sizes."""
        digest = hashlib.sha256()
        for path in self.paths:
            try:
                size = path.stat().st_size
            except OSError:
                size = -1
            digest.update(os.fsencode(path) + b"\0%d\n" % size)
        return {"photos": len(self.paths), "digest": digest.hexdigest()[:32]}

    def is_same(self, facts: Mapping[str, Any]) -> bool:
        return self.facts() == facts

    @contextmanager
    def opened(self) -> Iterator[Photos]:
        yield Photos([str(path) for path in self.paths], list(self.paths), Notices())

    def close(self) -> None:
        """Nothing: they are the user's."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def names_shards(argument: str) -> bool:
    """Whether an argument means shards: a path, pattern or URL that ends with ``.tar``, or a folder of such, no images.

    >>> names_shards("shards/{00000..00099}.tar"), names_shards("https://host/0.tar"), names_shards("photo.jpg")
    (True, True, False)
    """
    if is_url(argument):
        return bool(_TAR.search(argument.partition("?")[0]))
    if _TAR.search(argument):
        return not is_folder(Path(argument))
    path = Path(argument)
    if not is_folder(path):
        return False
    names = [entry.name for entry in os.scandir(path) if not entry.name.startswith(".")]
    return any(_TAR.search(name) for name in names) and not any(map(is_image_name, names))


def find_shards(arguments: Sequence[str], fetched: FetchedShards, notices: Notices) -> list[Part]:
    """The shards that arguments name, in their order; see :func:`names_shards`.

    ClippyError where an argument names no shard, or a shard is missing or named twice.
    """
    others = [argument for argument in arguments if not names_shards(argument)]
    if others:
        raise ClippyError(
            f"{others[0]} is not a tar shard, and the other arguments are", "Give shards alone, or photos alone."
        )
    places: list[Path | str] = []
    for argument in arguments:
        if is_url(argument):
            places += remote_shards([argument])
        elif is_folder(Path(argument)):
            places += shards_in(Path(argument), notices)
        else:
            places += local_shards([argument])
    local, urls = [place for place in places if isinstance(place, Path)], [p for p in places if isinstance(p, str)]
    if local:
        local_shards([str(path) for path in local])  # none twice by way of two arguments
    if urls:
        remote_shards([url for url in urls if "{" not in url])
        for url in {url.partition("://")[0]: url for url in urls}.values():
            check_driver(url)
    stems = output_stems([place if isinstance(place, Path) else _path_of(place) for place in places])
    return [
        LocalShard(stem, place) if isinstance(place, Path) else RemoteShard(stem, place, fetched)
        for stem, place in zip(stems, places, strict=True)
    ]


def split_photos(paths: Sequence[Path], size: int = PHOTOS_A_PART) -> list[Part]:
    """Lists of ``size`` photos each, ``photos-00000`` and so on."""
    starts = range(0, len(paths), size)
    return [PhotoList(f"photos-{number:05}", tuple(paths[start : start + size])) for number, start in enumerate(starts)]


def _path_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path).lstrip("/") or "shard.tar")
