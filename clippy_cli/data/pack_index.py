"""The table beside each packed shard: which image became which key, and what was left out."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

State = Literal["copied", "encoded", "skipped"]
INDEX_COLUMNS = ("key", "state", "image", "problem")


class PackedRow(NamedTuple):
    """A line of the index beside a shard: which file is behind which key."""

    key: str
    state: State
    image: str
    problem: str


def write_index(rows: list[PackedRow], stream: BinaryIO) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([INDEX_COLUMNS, *rows])
    stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def read_index(path: Path) -> list[PackedRow] | None:
    """The rows beside a shard; None where there are none, or they are not as :func:`write_index` writes them."""
    with suppress(OSError, UnicodeDecodeError, csv.Error, TypeError):
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t")
        if tuple(header) == INDEX_COLUMNS:
            return [PackedRow(*row) for row in rows]  # type: ignore[arg-type]
    return None
