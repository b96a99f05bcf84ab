"""Files that are whole or absent, and names that stay in their folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from clippy_cli.errors import ClippyError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it; nothing is left behind on any failure.

    Missing folders are made; threads may write into one folder at once. ClippyError where the disk is full, or the
    folder is none or forbids writing.
    """
    temporary = path.with_name(f".{path.name[:40]}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                write(stream)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ClippyError(
            f"{path}: cannot be written ({error.strerror or error})", "Free some space, or choose another place."
        ) from error
    return path


def stays_below(name: str) -> bool:
    """Whether a relative path written with ``/`` is printable and cannot leave the folder that it is joined to."""
    return name.isprintable() and "\\" not in name and not set(name.split("/")) & {"", ".", ".."}
