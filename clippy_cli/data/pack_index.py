"""The table beside each packed shard: which file became which key, what was left out, and how the file was then."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from clippy_cli.data.shard_index import index_shard
from clippy_cli.errors import ClippyError
from clippy_cli.regular_files import read_bytes, require_regular

State = Literal["copied", "encoded", "skipped"]
INDEX_COLUMNS = ("key", "state", "image", "problem", "size", "modified", "digest", "captions")


class PackedRow(NamedTuple):
    """A line of the index beside a shard: which file is behind which key.

    ``size`` in bytes and ``modified`` in nanoseconds are those of the file when it was packed, empty where there was
    none; ``digest`` is of its content and ``captions`` of its captions.
    """

    key: str
    state: State
    image: str
    problem: str
    size: str
    modified: str
    digest: str
    captions: str


def write_index(rows: list[PackedRow], stream: BinaryIO) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([INDEX_COLUMNS, *rows])
    stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def read_index(path: Path) -> list[PackedRow] | None:
    """The rows beside a shard; None where there are none, or they are not as :func:`write_index` writes them."""
    with suppress(OSError, UnicodeDecodeError, csv.Error, TypeError, ValueError):
        require_regular(path)
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t")
        if tuple(header) == INDEX_COLUMNS:
            return [PackedRow(*row) for row in rows]  # type: ignore[arg-type]
    return None


def kept_rows(tar: Path, index: Path, count: int) -> list[PackedRow] | None:
    """The rows of a shard that was packed whole from ``count`` images; None where it is to be packed again."""
    rows = read_index(index) if tar.is_file() else None
    if rows is None or len(rows) != count:
        return None
    try:
        there = index_shard(tar)
    except ClippyError:
        return None
    used = [row.key for row in rows if row.state != "skipped"]
    return rows if there.damage is None and [there.key(place) for place in range(len(there))] == used else None


def stamp(path: Path) -> tuple[str, str]:
    """Size and time of modification of a file, as the index has them; empty where there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return "", ""
    return str(stat.st_size), str(stat.st_mtime_ns)


def content_digest(data: bytes) -> str:
    """64 bits as hexadecimal digits."""
    return blake2b(data, digest_size=8).hexdigest()


def captions_digest(captions: Sequence[str]) -> str:
    """Of all captions of an image, in order."""
    return content_digest("\0".join(captions).encode("utf-8", "surrogatepass"))


def has_changed(row: PackedRow) -> bool:
    """Whether the file of a row is another one now; one that was only touched or copied is read to compare it."""
    size, modified = stamp(Path(row.image))
    if (size, modified) == (row.size, row.modified):
        return False
    if size != row.size or not size:
        return True
    try:
        return content_digest(read_bytes(Path(row.image))) != row.digest
    except OSError:
        return True
