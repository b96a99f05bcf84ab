"""Files and folders that are whole or absent, folders that may be written to, and names that stay in their folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from clippy_cli.errors import ClippyError, encodable, refusal
from clippy_cli.own_files import before_replacing
from clippy_cli.regular_files import read_bytes

_SURROGATES = re.compile("[\ud800-\udfff]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_OR_OVERWRITE = "Choose a new or an empty folder, or replace files of the same names with --overwrite."
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]+)")


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it; nothing is left behind on any failure.

    Missing folders are made; threads may write into one folder at once. ClippyError where the disk is full, the folder
    is none or forbids writing, or the file is somebody's (see :func:`~clippy_cli.own_files.replacing_own`). A link is
    replaced, not what it leads to. A pipe, a device or ``/dev/stdout`` is written to as it is.
    """
    if is_stream(path):
        return _write_through(path, write)
    temporary = path.with_name(f".{path.name[:40]}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                write(stream)
            before_replacing(path, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ClippyError(
            f"{path}: cannot be written ({refusal(error)})", "Free some space, or choose another place."
        ) from error
    return path


def is_stream(path: Path) -> bool:
    """Whether what is written to ``path`` goes to a pipe, a device or an open file such as ``/dev/stdout``."""
    try:
        return _descriptor(path) is not None or not (
            stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)
        )
    except OSError:  # not there
        return False


@contextmanager
def whole_folder(target: Path, *, replace: bool = False, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside ``target`` that is renamed to it when the block ends without an error, else removed.

    With ``replace`` an older folder of that name is removed once the new one is in its place; with ``overwrite`` what
    else it holds stays, and files of the same names are replaced one by one; with neither, ``target`` must be new or
    empty, still so when the block ends, and keeps its hidden files. ClippyError where it is not, or cannot be written;
    an OSError of the block counts as that.
    """
    if not replace and not overwrite:
        require_empty(target, _OR_OVERWRITE)
    elif overwrite:
        _visible(target, "Choose a folder.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
        try:
            yield staging
            staging.chmod(0o755)
            if replace:
                _replace_folder(staging, target)
            else:
                if not overwrite:
                    require_empty(target, _OR_OVERWRITE)  # somebody may have written there meanwhile
                _fill_folder(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ClippyError(
            f"Cannot write to {target}: {refusal(error)}", "Free some space, or choose another folder."
        ) from error


def require_empty(folder: Path, hint: str = "Choose a new or an empty folder.") -> None:
    """ClippyError where ``folder`` is a file, cannot be read, or holds anything but hidden files."""
    there = _visible(folder, hint)
    if there:
        more = ", ..." if len(there) > 6 else ""
        raise ClippyError(f"The directory {folder} is not empty: it holds {', '.join(there[:6])}{more}.", hint)


def json_text(document: object, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """JSON that is UTF-8 whatever file names are in it (see :func:`~clippy_cli.errors.encodable`); NaN is refused."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _SURROGATES.sub(lambda found: encodable(found[0]).replace("\\", "\\\\"), text)
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text) if ascii_only else text


def claim_folder(folder: Path, name: str, description: bytes, hint: str) -> bytes | None:
    """Mark a folder as the place of one piece of work, so that the same command can continue there.

    Writes ``description`` as the file ``name`` into a new or empty folder and returns None; where the file is there
    already, changes nothing and returns what it holds. ClippyError where the folder holds anything else.
    """
    if name not in _visible(folder, hint):
        require_empty(folder, hint)
        write_whole(folder / name, lambda stream: stream.write(description))
        return None
    try:
        return read_bytes(folder / name)
    except OSError as error:
        raise ClippyError(f"{folder / name}: cannot be read ({error.strerror})", hint) from error


def prepare_folder(out: Path) -> None:
    """Make the folder of the results; ClippyError where it is a file or cannot be written to, before any work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        writable = os.access(out, os.W_OK)
    except OSError as error:
        raise ClippyError(f"{out}: cannot be made ({refusal(error)})", "Choose another --out.") from error
    if not writable:
        raise ClippyError(f"{out}: cannot be written to", "Choose another --out.")


def stays_below(name: str) -> bool:
    """Whether a relative path written with ``/`` is printable and cannot leave the folder that it is joined to."""
    return name.isprintable() and "\\" not in name and not set(name.split("/")) & {"", ".", ".."}


def _visible(folder: Path, hint: str) -> list[str]:
    """Names in a folder without the hidden ones, such as what a killed process left half written; none where absent."""
    if folder.exists() and not folder.is_dir():
        raise ClippyError(f"{folder} is a file, not a directory.", hint)
    try:
        return (
            sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []
        )
    except OSError as error:
        raise ClippyError(f"{folder}: cannot be read ({error.strerror})", hint) from error


def _descriptor(path: Path) -> int | None:
    """The number of the open file that a path such as ``/dev/stdout`` or ``/dev/fd/3`` stands for."""
    name = os.fspath(path)
    numbered = _DESCRIPTOR.fullmatch(name)
    return int(numbered[1]) if numbered else _STANDARD.get(name)


def _write_through(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write to an open file, a pipe or a device, which cannot be replaced; what ``write`` makes may need to seek."""
    content = BytesIO()
    write(content)
    try:
        number = _descriptor(path)
        sys.stdout.flush()
        with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as stream:
            stream.write(content.getvalue())
    except OSError as error:
        raise ClippyError(f"{path}: cannot be written ({refusal(error)})", "Choose a file.") from error
    return path


def _fill_folder(new: Path, target: Path) -> None:
    """Rename ``new`` to ``target``; where that holds anything, move the files there one by one, over what is there."""
    if target.is_dir() and any(target.iterdir()):
        _move_files(new, target)
    else:
        _replace_folder(new, target)


def _move_files(new: Path, target: Path) -> None:
    """Move the files below ``new`` to the same places below ``target``, over what is there."""
    for path in sorted(path for path in new.rglob("*") if path.is_file()):
        place = target / path.relative_to(new)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _replace_folder(new: Path, target: Path) -> None:
    """Rename ``new`` to ``target``; two renames where ``target`` exists, since a full folder cannot be overwritten.

    What lies in the older folder under other names is somebody's, such as a README, and is moved to the new one.
    """
    if target.exists():
        if not target.is_dir():
            raise NotADirectoryError
        place = target.resolve()  # a link to a folder stays
        retired = new.with_name(new.name + ".old")
        shutil.move(place, retired)
        shutil.move(new, place)
        for path in retired.iterdir():
            if not os.path.lexists(place / path.name):
                shutil.move(path, place / path.name)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        new.replace(target)
