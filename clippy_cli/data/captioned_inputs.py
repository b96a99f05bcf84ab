"""From the paths of a command line to the captioned data that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.shard_names import shards_in
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.table_files import refuse_other_kinds
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_file, is_folder

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")


def open_captioned_data(
    inputs: Sequence[str],
    image_column: str | None = None,
    caption_column: str | None = None,
    root: Path | None = None,
) -> ShardSource | TableSource | FolderSource:
    """A table, a folder of shards or of images with text files, or shards as in :class:`ShardSource`.

    A single ``.csv``, ``.tsv``, ``.tab`` or ``.txt`` file is a table; ClippyError where what describes a table is given
    with anything else.
    """
    path = Path(inputs[0])
    if len(inputs) == 1 and path.suffix.lower() in TABLE_SUFFIXES and not is_folder(path):
        return TableSource(path, image_column, caption_column, root)
    if (image_column, caption_column, root) != (None, None, None):
        raise ClippyError(
            f"{' '.join(inputs)} is no table: --root, --image-column and --caption-column are for tables",
            "Leave them out, or give one .csv or .tsv file.",
            exit_code=ExitCode.USAGE,
        )
    for name in inputs:
        refuse_other_kinds(Path(name))
    _refuse_several_tables(inputs)
    if len(inputs) == 1 and is_folder(path):
        notices = Notices()
        shards = shards_in(path, notices)
        if not shards and notices.incomplete:
            raise ClippyError(f"{path}: holds no shard that can be read", "; ".join(map(str, notices)))
        if not shards:
            return FolderSource(path)
        source = ShardSource([str(shard) for shard in shards])
        source.notices.update(notices)
        return source
    return ShardSource(inputs)


def _refuse_several_tables(inputs: Sequence[str]) -> None:
    tables = [name for name in inputs if Path(name).suffix.lower() in TABLE_SUFFIXES and is_file(Path(name))]
    if tables and len(inputs) > 1:
        raise ClippyError(
            f"{tables[0]} is a table, and {len(inputs)} inputs are named", "Give one table, or shards alone."
        )
