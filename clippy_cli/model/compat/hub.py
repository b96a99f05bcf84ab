"""huggingface_hub: whether to ask the network, quietly, and what is cached."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from clippy_cli.regular_files import is_folder, read_text

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

__all__ = ["EntryNotFoundError", "LocalEntryNotFoundError", "cached", "download", "hub_session", "read_json"]


@contextmanager
def hub_session(source: str | None = None) -> Iterator[bool]:
    """Give ``local_files_only`` for the hub's clients, which log nothing but errors meanwhile.

    It is true where ``source`` is a folder, where the user asked for no network (``HF_HUB_OFFLINE``), and where the
    hub's address does not resolve: its clients would try again for minutes.
    """
    hub_logger = logging.getLogger("huggingface_hub")
    level = hub_logger.level
    hub_logger.setLevel(logging.ERROR)
    try:
        yield (source is not None and is_folder(Path(source))) or constants.HF_HUB_OFFLINE or not _resolves()
    finally:
        hub_logger.setLevel(level)


def download(repository: str, files: Sequence[str], *, local_files_only: bool) -> Path:
    """The first of ``files`` that the repository holds, or that is cached; raises what the hub's client does."""
    *earlier, last = files
    for file in earlier:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=local_files_only))
        except EntryNotFoundError:  # LocalEntryNotFoundError is one
            continue
    return Path(huggingface_hub.hf_hub_download(repository, last, local_files_only=local_files_only))


def cached(repository: str, files: Sequence[str]) -> bool:
    """Whether one of the files is in the cache; no network is asked."""
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in files)


def read_json(source: str, files: Sequence[str]) -> dict[str, Any]:
    """The first of ``files`` that the folder or repository holds; {} without any, ValueError for no JSON object."""
    for name in files:
        try:
            with hub_session(source) as local:
                path = (
                    Path(source) / name if is_folder(Path(source)) else download(source, [name], local_files_only=local)
                )
            found = json.loads(read_text(path))
        except (OSError, HfHubHTTPError):
            continue
        except RecursionError:
            raise ValueError(f"{name} is nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError(f"{name} holds no JSON object")
        return found
    return {}


def _resolves() -> bool:
    if any(os.environ.get(name) for name in PROXY_VARIABLES):
        return True  # the proxy resolves names, not this machine
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
