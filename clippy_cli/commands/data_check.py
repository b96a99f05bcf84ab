"""``clippy data check``: what captioned data holds, before a model is trained on it."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.errors import ExitCode
from clippy_cli.notices import Notices

if TYPE_CHECKING:
    from clippy_cli.data.checking import CheckReport, Distribution, Repeats

_CAPTION_WIDTH = 60


def data_check(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARDS...",
            help="Local tar shards (paths, quoted globs, ranges such as 'train-{0000..0099}.tar'), a folder of them, "
            "a .csv or .tsv table, or a folder in which NAME.txt lies beside NAME.jpg. URLs are not read.",
        ),
    ],
    images: Annotated[bool, typer.Option(help="Decode every image; without, only captions are read.")] = True,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Look at N samples, spread evenly. Default: all.")
    ] = None,
    root: options.TableRoot = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Say whether N training processes can be fed.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Threads that read images. Default: one a core.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Count what training data holds: broken samples, caption lengths, image sizes, duplicates.

    The exit code is 3 where a sample is broken, a shard is damaged, image or caption is missing, or rows of a table do
    not fit its header.

    \b
    Examples:
      clippy data check 'shards/{00000..00007}.tar'
      clippy data check cc12m/ --limit 10000 --processes 32
      clippy data check captions.csv --no-images
    """
    from clippy_cli.data.captioned_inputs import open_captioned_data
    from clippy_cli.data.checking import check_captioned_data

    with console.status("reading the index"):
        source = open_captioned_data(inputs, image_column, caption_column, root)
    total = min(len(source), limit or len(source))
    with console.progress("checking", total, unit="images" if images else "samples") as advance:
        report = check_captioned_data(
            source, images=images, limit=limit, workers=workers or os.cpu_count() or 1, on_progress=advance
        )
    if json:
        fed = {} if processes is None else {"processes": processes, "fed": report.feeds(processes)}
        found = asdict(replace(report, notices=Notices()))
        console.print_json({"command": "data check", **found, "notices": report.notices.records(), **fed})
    else:
        _print_report(report)
        if processes is not None:
            _print_processes(report, processes)
    if report.faulty:
        raise typer.Exit(ExitCode.PARTIAL)


def _print_report(report: CheckReport) -> None:
    console.print_notices(report.notices)
    if report.broken:
        console.print_warning(f"{report.broken:,} samples are broken; training skips them, such as")
        for example in report.broken_examples:
            console.err.print(Text(f"  {example}"), soft_wrap=True)
    console.out.print(Text(report.source, "bold"), soft_wrap=True)
    _print_distributions(report)
    _print_counts(report)


def _print_distributions(report: CheckReport) -> None:
    captions, images = report.captions, report.images
    rows: list[tuple[str, Distribution | None]] = [("samples a shard", report.shard_samples)]
    if captions is not None:
        rows.append(("captions an image", captions.per_image))
        rows.append(("words a caption", captions.words))
        rows.append(("characters a caption", captions.characters))
    if images is not None:
        rows.append(("short side, pixels", images.short_side))
        rows.append(("long side, pixels", images.long_side))
    table = Table("", box=None, pad_edge=False)
    for name in ("min", "median", "p95", "max"):
        table.add_column(name, justify="right")
    for name, values in rows:
        if values is not None:
            numbers = (values.minimum, values.median, values.p95, values.maximum)
            table.add_row(name, *(f"{number:,}" for number in numbers))
    if table.row_count:
        console.out.print(table, "")


def _print_counts(report: CheckReport) -> None:
    from clippy_cli.data.checking import LONG_WORDS, SMALL_SIDE

    captions, images = report.captions, report.images
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    table.add_row(
        "samples checked", f"{report.checked:,}", "" if report.checked == report.samples else f"of {report.samples:,}"
    )
    if report.doubtful is not None:
        table.add_row("doubtful rows", f"{report.doubtful:,}", f"of {report.rows:,}: they do not fit the header")
    table.add_row("broken samples", f"{report.broken:,}", "")
    if images is not None:
        formats = ", ".join(f"{count:,} {name}" for name, count in images.formats.items())
        table.add_row("images", f"{sum(images.formats.values()):,}", f"{formats}; {decimal(images.bytes)}")
        table.add_row("small images", f"{images.small:,}", f"short side below {SMALL_SIDE} pixels")
        table.add_row(
            "exact duplicates", f"{images.exact.count:,}", _pair("byte for byte an earlier image", images.exact)
        )
        table.add_row(
            "near duplicates",
            f"{images.near.count:,}",
            _pair("other bytes, equal 64-bit dHash (9x8 gray pixels)", images.near),
        )
    if captions is not None:
        table.add_row("captions", f"{captions.count:,}", "")
        table.add_row(
            "long captions", f"{captions.long:,}", f"over {LONG_WORDS} words; most text towers cut at 77 tokens"
        )
        most = "".join(f"; most often, {count:,} x {_short(text)!r}" for text, count in captions.most_repeated[:1])
        table.add_row("repeated captions", f"{captions.repeated:,}", f"word for word an earlier one{most}")
    console.out.print(table)


def _print_processes(report: CheckReport, processes: int) -> None:
    many = f"{processes:,} processes"
    if report.shards is None:
        console.out.print(Text(f"{many} can be fed: files are read in any order"))
    elif report.feeds(processes):
        console.out.print(
            Text(f"{many} can be fed: {report.shards:,} shards, {report.shards // processes:,} or more each")
        )
    else:
        console.print_warning(
            f"{many} cannot be fed from URLs: there are {report.shards:,} shards and each needs one of its own; "
            "local shards are read in any order"
        )
        console.print_hint(f"Pack again with --shards {processes}, or a multiple of it.")


def _pair(meaning: str, repeats: Repeats) -> str:
    return meaning + "".join(f"; {later} = {earlier}" for later, earlier in repeats.examples[:1])


def _short(text: str) -> str:
    return text if len(text) <= _CAPTION_WIDTH else f"{text[:_CAPTION_WIDTH]}..."
