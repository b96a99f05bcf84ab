"""Which files of a folder clippy wrote: only those are replaced, and only by results of the same photo.

A folder of results holds ``.clippy-written.jsonl``, a line for each file that was written there: its name, size and
SHA-256, and what it was made from. A file that is not named there, or has changed since, is somebody's work.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clippy_cli.errors import ClippyError
from clippy_cli.regular_files import open_regular
from clippy_cli.stages import OWN_FILES, stage

MANIFEST = ".clippy-written.jsonl"
_SHOWN = 5
_KEPT = 3
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Entry:
    """One file as it was written; ``made_from`` is the photo's path, or empty."""

    size: int
    modified: int
    digest: str
    made_from: str


class OwnFiles:
    """What clippy wrote into one folder, itself or below; any number of threads and processes may add to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest = folder / MANIFEST
        self._entries: dict[str, list[_Entry]] = {}  # the newest last: a killed process may not have got to its file
        self._read = 0
        self._lock = threading.Lock()

    def holds(self, path: Path) -> bool:
        """Whether the path lies in the folder or below it."""
        return not self._name(path).startswith(os.pardir)

    def is_own(self, path: Path) -> bool:
        """Whether the file was written by clippy and has not changed since."""
        return self._objection(path, None) is None

    def check(self, paths: Iterable[Path], made_from: str = "", *, flag: str = "--out") -> None:
        """ClippyError that names those of ``paths`` that are there and must not be replaced by what is made now.

        ``flag`` is what chooses another place.
        """
        objections = [text for path in paths if os.path.lexists(path) and (text := self._objection(path, made_from))]
        if objections:
            more = f"\n  and {len(objections) - _SHOWN:,} more" if len(objections) > _SHOWN else ""
            listed = "".join(f"\n  {text}" for text in objections[:_SHOWN])
            raise ClippyError(
                f"{self.folder} holds files that would be replaced:{listed}{more}",
                f"Choose another place with {flag}, or replace them with --overwrite. In Python: another folder or "
                "stem, or overwrite=True.",
            )

    def add(self, path: Path, content: Path, made_from: str) -> None:
        """Note that ``path`` is about to become what the file ``content`` holds."""
        status = content.stat()
        entry = _Entry(status.st_size, status.st_mtime_ns, _digest(content), made_from)
        name = self._name(path)
        line = json.dumps({"file": name, **vars(entry)}) + "\n"  # ASCII, whatever the names are
        with self._lock:
            with self._manifest.open("ab") as stream:
                stream.write(line.encode())
            self._remember(name, entry)

    def _objection(self, path: Path, made_from: str | None) -> str | None:
        self._refresh()
        shown = path.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        known = self._entries.get(self._name(path))
        if not known:
            return f"{shown}: not written by clippy"
        entry = next((entry for entry in reversed(known) if _holds(path, entry)), None)
        if entry is None:
            return f"{shown}: changed since clippy wrote it"
        if made_from is not None and made_from != entry.made_from:
            return f"{shown}: made from {entry.made_from or 'something else'}"
        return None

    def _remember(self, name: str, entry: _Entry) -> None:
        self._entries[name] = [*self._entries.get(name, [])[1 - _KEPT :], entry]

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.folder)

    def _refresh(self) -> None:
        """Read the lines that were added since."""
        with self._lock:
            try:
                with open_regular(self._manifest) as stream:
                    if os.fstat(stream.fileno()).st_size < self._read:  # deleted and begun again
                        self._entries, self._read = {}, 0
                    stream.seek(self._read)
                    for line in stream:
                        if line.endswith(b"\n"):
                            self._read += len(line)
                            self._take(line)
            except FileNotFoundError:
                self._entries, self._read = {}, 0
            except OSError as error:
                raise ClippyError(
                    f"{self._manifest}: cannot be read ({error.strerror or error})", "Choose another folder."
                ) from error

    def _take(self, line: bytes) -> None:
        try:
            fields: Any = json.loads(line)
            entry = _Entry(
                int(fields["size"]), int(fields["modified"]), str(fields["digest"]), str(fields["made_from"])
            )
            self._remember(str(fields["file"]), entry)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return  # a damaged line makes a file a stranger's, which is the safe side


@dataclass(frozen=True)
class _Active:
    own: OwnFiles
    made_from: str
    overwrite: bool
    new: bool


_folders: dict[str, OwnFiles] = {}
_active: ContextVar[_Active | None] = ContextVar("own files", default=None)


def own_files(folder: Path) -> OwnFiles:
    """What clippy wrote into ``folder``; the same object for the same folder, so that a list is read once."""
    return _folders.setdefault(os.path.abspath(folder), OwnFiles(folder))  # noqa: PTH100


@contextmanager
def replacing_own(
    folder: Path, made_from: str = "", *, overwrite: bool = False, new: bool = False
) -> Iterator[OwnFiles]:
    """While the block runs, files that this thread writes below ``folder`` replace only what clippy wrote there.

    Args:
        folder: of the results.
        made_from: path of the photo that they are made from; results of another photo are not replaced.
        overwrite: replace whatever is there.
        new: replace nothing; for a folder that was chosen since it has none of these files.
    """
    own = own_files(folder)
    token = _active.set(_Active(own, made_from, overwrite, new))
    try:
        yield own
    finally:
        _active.reset(token)


def before_replacing(path: Path, content: Path) -> None:
    """Called by :func:`~clippy_cli.files.write_whole` before ``content`` becomes ``path``; may raise ClippyError."""
    active = _active.get()
    if active is None or not active.own.holds(path):
        return
    if active.new and os.path.lexists(path):
        raise ClippyError(
            f"{path} was written by another process meanwhile.", "Choose another place with --out, or run it again."
        )
    with stage(OWN_FILES):
        if not active.overwrite:
            active.own.check([path], active.made_from)
        active.own.add(path, content, active.made_from)


def _holds(path: Path, entry: _Entry) -> bool:
    try:
        status = path.stat()
        return status.st_size == entry.size and (status.st_mtime_ns == entry.modified or _digest(path) == entry.digest)
    except OSError:
        return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
