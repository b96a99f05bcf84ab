"""Readers of captioned data for the fuzzers: each takes a file and may raise ClippyError, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clippy_cli.data.captions import BrokenSampleError, CaptionSource
from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError

MOST_SAMPLES = 8


def read_table(path: Path) -> None:
    """A .csv, .tsv or .txt table, whose images may lie beside it."""
    _read(TableSource(path))


def read_shard(path: Path) -> None:
    """A .tar shard."""
    _read(ShardSource([str(path)]))


def read_text_folder(path: Path) -> None:
    """The folder of a file: images and text files."""
    _read(FolderSource(path.parent))


READERS: dict[str, Callable[[Path], None]] = {
    "table": read_table,
    "shard": read_shard,
    "text_folder": read_text_folder,
}


def _read(source: CaptionSource) -> None:
    for notice in source.notices:
        str(notice).encode()
    for index in range(min(len(source), MOST_SAMPLES)):
        try:
            source.captions(index)
            assert source.read(index).image.ndim == 3
        except (BrokenSampleError, ClippyError):
            continue
