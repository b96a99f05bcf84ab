"""One process at a time in a folder: the second is refused at once and told who holds it.

Those that write files of their own, photo by photo, share it with each other, and not with one that holds it alone.

A lock is the file ``.clippy-lock`` with a POSIX record lock on it, which ends with its process however that dies, and
is not inherited by workers. The file says who holds it; one that is left by a killed process of this machine is taken
over, one of another machine is not, since nothing here can tell whether that process lives; unless it was taken with a
lease, and its holder has not touched the file for that long.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clippy_cli.errors import ClippyError, refusal
from clippy_cli.regular_files import NOT_REGULAR

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # Windows has none

LOCK = ".clippy-lock"
_MOST_BYTES = 4096
_TRIES, _PAUSE_SECONDS = 5, 0.02  # while another that shares the folder makes sure that it is the last
_TOUCHES = 20  # of a lock, within its lease
_held: set[str] = set()
_guard = threading.Lock()


class FolderInUseError(ClippyError):
    """Another process, or another thread of this one, holds the folder."""


@contextmanager
def hold_folder(folder: Path, work: str, *, shared: bool = False, lease: float | None = None) -> Iterator[None]:
    """Keep other clippy processes out of ``folder``, made if missing, while the block runs.

    Args:
        folder: what is written to.
        work: what others are told of it, such as ``clippy train``.
        shared: let other processes share it.
        lease: seconds after which other machines may take the folder over, where this process no longer touches its
            lock; their clocks should agree to a part of it. None: they never do.

    Raises:
        FolderInUseError: another process, or another thread of this one, holds it.
        ClippyError: the folder cannot be written to.
    """
    path = folder / LOCK
    place = os.path.realpath(path)
    with _guard:
        if place in _held:
            raise _in_use(path, _described(work, shared, lease))
        _held.add(place)
    new = not folder.exists()
    try:
        descriptor = _acquire(path, _described(work, shared, lease))
        try:
            with nullcontext() if lease is None else _touched(path, lease / _TOUCHES):
                yield
        finally:
            with suppress(OSError):  # the folder may have been removed meanwhile
                if _is_current(descriptor, path) and (not shared or _is_alone(descriptor)):
                    path.unlink()
            os.close(descriptor)
            if new:
                with suppress(OSError):  # it holds something, as it should
                    folder.rmdir()
    finally:
        with _guard:
            _held.discard(place)


def refuse_in_use(folder: Path) -> None:
    """FolderInUseError where a process holds ``folder`` alone, whose files are then not complete; for readers."""
    path = folder / LOCK
    with _guard:
        if os.path.realpath(path) in _held:  # by this process, whose lock would end as the file is closed again
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            return
        try:
            _lock(descriptor, shared=True)
        except (BlockingIOError, PermissionError):
            raise _in_use(path, _owner(descriptor), "Wait for it") from None
        except OSError:  # no locks here, and whoever is named may be long gone
            pass
        finally:
            os.close(descriptor)


def _acquire(path: Path, described: dict[str, Any]) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o644)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, f"{path.name} is {NOT_REGULAR}")
        except OSError as error:
            raise ClippyError(
                f"{path.parent}: cannot be written to ({refusal(error)})", "Choose another folder."
            ) from error
        try:
            _take(descriptor, path, shared=described["shared"])
            if _is_current(descriptor, path):
                content = json.dumps(described).encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, content, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed the file between opening and locking


def _take(descriptor: int, path: Path, *, shared: bool) -> None:
    """Lock the open file, or ClippyError."""
    owner = _owner(descriptor)
    together = shared and owner.get("shared") is True
    gone = f"If that process is gone, delete {path}"
    try:
        _lock(descriptor, shared=shared)
    except (BlockingIOError, PermissionError):
        raise _in_use(path, owner) from None
    except OSError:  # a file system or a platform without locks
        if _seems_alive(owner) and not together and not _has_lapsed(descriptor, owner):
            raise _in_use(path, owner, gone) from None
    is_foreign = owner and owner.get("host") != socket.gethostname() and not _has_lapsed(descriptor, owner)
    if is_foreign and not together and _is_current(descriptor, path):
        raise _in_use(path, owner, gone)


def _lock(descriptor: int, *, shared: bool) -> None:
    """Lock the open file; BlockingIOError or PermissionError where another has, OSError where there are no locks."""
    if fcntl is None:
        raise OSError("no record locks")
    for left in reversed(range(_TRIES if shared else 1)):
        try:
            fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if not left:
                raise
            time.sleep(_PAUSE_SECONDS)


def _is_alone(descriptor: int) -> bool:
    """Whether no other process shares the locked file."""
    try:
        _lock(descriptor, shared=False)
    except OSError:
        return False
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one that the path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


@contextmanager
def _touched(path: Path, seconds: float) -> Iterator[None]:
    """While the block runs, a thread renews the file's time of modification."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(seconds):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=touch, daemon=True, name="clippy-lease")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _has_lapsed(descriptor: int, owner: dict[str, Any]) -> bool:
    """Whether who held the open file with a lease has not touched it for as long."""
    lease = owner.get("lease")
    return isinstance(lease, int | float) and time.time() - os.fstat(descriptor).st_mtime > lease


def _described(work: str, shared: bool, lease: float | None) -> dict[str, Any]:
    since, pid = datetime.now(UTC).isoformat(timespec="seconds"), os.getpid()
    place = {"pid": pid, "host": socket.gethostname(), "started": _started(pid)}
    return {"work": work, **place, "since": since, "shared": shared, "lease": lease}


def _started(pid: int) -> str | None:
    """When a process started, as Linux counts it; what tells it from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _owner(descriptor: int) -> dict[str, Any]:
    """What the file says; {} for an empty or unreadable one."""
    try:
        content = json.loads(os.pread(descriptor, _MOST_BYTES, 0) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _seems_alive(owner: dict[str, Any]) -> bool:
    """Whether the process of this machine that the file names is there; True for other machines."""
    if not owner or owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, KeyError, TypeError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return owner.get("started") in (None, _started(int(owner["pid"])))


def _in_use(path: Path, owner: dict[str, Any], remedy: str = "Wait for it or stop it") -> FolderInUseError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('since', '?')}"
    return FolderInUseError(
        f"{path.parent} is in use by {owner.get('work', 'another clippy process')} ({who}).",
        f"{remedy}, or choose another folder.",
    )
