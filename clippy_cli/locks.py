"""One process at a time in a folder: the second is refused at once and told who holds it.

A lock is the file ``.clippy-lock`` with a POSIX record lock on it, which ends with its process however that dies, and
is not inherited by workers. The file says who holds it; one that is left by a killed process of this machine is taken
over, one of another machine is not, since nothing here can tell whether that process lives.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clippy_cli.errors import ClippyError
from clippy_cli.regular_files import NOT_REGULAR

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # Windows has none

LOCK = ".clippy-lock"
_MOST_BYTES = 4096
_held: set[str] = set()
_guard = threading.Lock()


@contextmanager
def hold_folder(folder: Path, work: str) -> Iterator[None]:
    """Keep other clippy processes out of ``folder``, made if missing, while the block runs.

    Args:
        folder: what is written to.
        work: what others are told of it, such as ``clippy train``.

    Raises:
        ClippyError: another process, or another thread of this one, holds it; the folder cannot be written to.
    """
    path = folder / LOCK
    place = os.path.realpath(path)
    with _guard:
        if place in _held:
            raise _in_use(path, _described(work))
        _held.add(place)
    new = not folder.exists()
    try:
        descriptor = _acquire(path, work)
        try:
            yield
        finally:
            with suppress(OSError):  # the folder may have been removed meanwhile
                path.unlink()
            os.close(descriptor)
            if new:
                with suppress(OSError):  # it holds something, as it should
                    folder.rmdir()
    finally:
        with _guard:
            _held.discard(place)


def _acquire(path: Path, work: str) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o644)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, f"{path.name} is {NOT_REGULAR}")
        except OSError as error:
            raise ClippyError(
                f"{path.parent}: cannot be written to ({error.strerror or error})", "Choose another folder."
            ) from error
        try:
            _take(descriptor, path)
            if _is_current(descriptor, path):
                content = json.dumps(_described(work)).encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, content, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed the file between opening and locking


def _take(descriptor: int, path: Path) -> None:
    """Lock the open file, or ClippyError."""
    owner = _owner(descriptor)
    if fcntl is not None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise _in_use(path, owner) from None
        except OSError:  # a file system without locks
            if _seems_alive(owner):
                raise _in_use(path, owner) from None
    elif _seems_alive(owner):
        raise _in_use(path, owner)
    if owner and owner.get("host") != socket.gethostname() and _is_current(descriptor, path):
        raise _in_use(path, owner, f"If that process is gone, delete {path}")


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one that the path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _described(work: str) -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"work": work, "pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _owner(descriptor: int) -> dict[str, Any]:
    """What the file says; {} for an empty or unreadable one."""
    try:
        content = json.loads(os.pread(descriptor, _MOST_BYTES, 0) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _seems_alive(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine has the number that the file says; True for other machines."""
    if not owner or owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, KeyError, TypeError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _in_use(path: Path, owner: dict[str, Any], remedy: str = "Wait for it or stop it") -> ClippyError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('since', '?')}"
    return ClippyError(
        f"{path.parent} is in use by {owner.get('work', 'another clippy process')} ({who}).",
        f"{remedy}, or choose another folder.",
    )
