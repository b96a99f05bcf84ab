"""``clippy data pack``: webdataset shards from a table or a folder of captioned images."""

from __future__ import annotations

import json as json_format
import os
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_folder

if TYPE_CHECKING:
    from clippy_cli.data.packing import PackReport

SAMPLES_PER_SHARD = 10_000


def data_pack(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="A .csv or .tsv file with a header, one image path and one caption a row; or a folder in which "
            "NAME.txt lies beside NAME.jpg.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the shards; made if missing, else empty.")],
    root: options.TableRoot = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    shards: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, metavar="N", help="How many shards, instead of how large.")
    ] = None,
    samples_per_shard: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"Most samples of a shard. Default: {SAMPLES_PER_SHARD}.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Shrink images whose longer side is larger, and save those as JPEG. Default: copy every image.",
        ),
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=95, metavar="N", help="Of the JPEGs that are made.")] = 92,
    shuffle: Annotated[bool, typer.Option(help="Mix the samples over all shards.")] = True,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Draws the order.")] = 0,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Begins shard names and keys, such as train-.")] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Threads that check images. Default: one a core.")
    ] = None,
    max_doubtful: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Refuse a table of which more rows do not fit the header."),
    ] = 0.01,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier pack there, and files of the shards' names.")
    ] = False,
    strict: options.Strict = False,
    json: options.Json = False,
) -> None:
    """Write tar shards, as training reads them, from image files and their captions.

    Captions of one image become one sample. Every image is decoded to see that it is whole; those that cannot be used
    are skipped, and so is what a table or folder does not caption; the exit code is then 3. A .tsv beside each shard
    says which file is behind which key. After Ctrl-C the same command goes on where it stopped; images that have
    changed meanwhile are named, and nothing is packed.

    \b
    Examples:
      clippy data pack captions.csv shards/
      clippy data pack captions.tsv shards/ --root photos/ --max-side 512 --shards 64
      clippy data pack photos-with-txt/ shards/ --prefix dev-
    """
    if shards is not None and samples_per_shard is not None:
        raise ClippyError(
            "--shards and --samples-per-shard are mutually exclusive", "Give one of them.", exit_code=ExitCode.USAGE
        )
    if is_folder(table) and (root, image_column, caption_column) != (None, None, None):
        raise ClippyError(
            f"{table} is a folder: --root, --image-column and --caption-column are for tables",
            "Leave them out, or give a .csv or .tsv file.",
            exit_code=ExitCode.USAGE,
        )

    from clippy_cli.data.image_folder import FolderSource
    from clippy_cli.data.pack_claim import Packing
    from clippy_cli.data.packing import pack_shards, shards_for
    from clippy_cli.data.tables import TableSource
    from clippy_cli.locks import hold_folder

    with console.status(f"reading {table}"):
        source = FolderSource(table) if is_folder(table) else TableSource(table, image_column, caption_column, root)
    if isinstance(source, TableSource):
        source.refuse_doubtful(max_doubtful, "pass a larger --max-doubtful")
    if strict:
        source.notices.refuse(str(table))
    packing = Packing(
        shards=shards or shards_for(len(source), samples_per_shard or SAMPLES_PER_SHARD),
        max_side=max_side,
        quality=quality,
        shuffle=shuffle,
        seed=seed,
        prefix=prefix,
    )
    with hold_folder(out, "clippy data pack"), console.progress("packing", len(source), unit="images") as advance:
        count = workers or os.cpu_count() or 1
        report = pack_shards(source, out, packing, workers=count, overwrite=overwrite, on_progress=advance)
    if json:
        packed = asdict(replace(report, notices=Notices())) | {"notices": report.notices.records()}
        console.print_json({"command": "data pack", **packing.model_dump(), **packed, "folder": str(out)})
    else:
        _print_report(report)
    if report.skipped or report.notices.incomplete:
        raise typer.Exit(ExitCode.PARTIAL)


def _print_report(report: PackReport) -> None:
    console.print_notices(report.notices)
    if report.skipped:
        console.print_warning(
            f"{report.skipped:,} images cannot be used and were skipped (all: {report.folder}/*.tsv), such as"
        )
        for example in report.examples:
            console.err.print(Text(f"  {example}"), soft_wrap=True)
    a_shard = f"{report.smallest:,}"
    a_shard += f" to {report.largest:,}" if report.largest > report.smallest else ""
    table = Table.grid(padding=(0, 2))
    table.add_row("samples", f"{report.samples:,} with {report.captions:,} captions")
    table.add_row(
        "shards",
        f"{report.shards:,} of {a_shard} samples" + (f", {report.kept:,} were there already" * bool(report.kept)),
    )
    table.add_row("size", f"{decimal(report.bytes)}, {decimal(report.bytes // report.samples)} a sample")
    if report.encoded:
        table.add_row("made JPEG", f"{report.encoded:,} images; the others are copied")
    table.add_row("skipped", f"{report.skipped:,}")
    console.out.print(table)
    source = f"source: {{kind: shards, paths: {json_format.dumps(report.paths, ensure_ascii=False)}}}"
    console.out.print(Text(f"\nIn a recipe:\n  data:\n    {source}"), soft_wrap=True)
    console.out.print(Text(f"Look at them:\n  clippy data check {shlex.quote(report.paths)}"), soft_wrap=True)
