"""Reading weights from the Hugging Face hub: quietly, and without minutes of retries where there is no network."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import huggingface_hub
from transformers.utils import logging as transformers_logging

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@contextmanager
def hub_session() -> Iterator[None]:
    """While open, the hub's clients print nothing, and use their cache alone if the hub's address does not resolve."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_logger = logging.getLogger("huggingface_hub")
    level, offline = hub_logger.level, huggingface_hub.constants.HF_HUB_OFFLINE
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logger.setLevel(logging.ERROR)
    huggingface_hub.constants.HF_HUB_OFFLINE = offline or not _resolves()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = offline
        hub_logger.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _resolves() -> bool:
    if any(os.environ.get(name) for name in PROXY_VARIABLES):
        return True  # the proxy resolves names, not this machine
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
