"""``clippy waterbirds build``: a set of objects on backgrounds, from their photos, masks and places."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.errors import ExitCode
from clippy_cli.notices import Notices

if TYPE_CHECKING:
    from clippy_cli.waterbirds.build.build import BuildReport


def waterbirds_build(
    birds: options.Birds,
    backgrounds: options.Backgrounds,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the new set; made if missing, else empty.")],
    strength: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Share of training images on the place of their class."),
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Draws splits and backgrounds.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Images made at once. Default: one a core.")
    ] = None,
    strict: options.Strict = False,
    json: options.Json = False,
) -> None:
    """Build Waterbirds, or a test like it from objects and backgrounds of your own.

    Class 0 goes with place 0 and class 1 with place 1; folders and classes of your own are numbered by the alphabet.
    After Ctrl-C the same command goes on where it stopped.

    \b
    Examples:
      clippy waterbirds build --birds CUB --backgrounds places365 --out waterbirds
      clippy waterbirds build --birds pets --backgrounds streets-and-woods --out pets-placed --strength 0.8
    """
    from clippy_cli.locks import hold_folder
    from clippy_cli.waterbirds.build.backgrounds import open_backgrounds
    from clippy_cli.waterbirds.build.build import build_set
    from clippy_cli.waterbirds.build.foregrounds import open_foregrounds

    with console.status("looking for objects and backgrounds"):
        objects, scenes = open_foregrounds(birds), open_backgrounds(backgrounds)
    notices = Notices([*objects.notices, *scenes.notices])
    if strict:
        notices.refuse("The input")

    def accept(found: Notices) -> None:
        if strict:
            found.refuse("The input")
        notices.update(found)

    held = hold_folder(out, "clippy waterbirds build")
    with held, console.progress("building", len(objects), unit="images") as advance:
        report = build_set(
            objects,
            scenes,
            out,
            strength=strength,
            seed=seed,
            workers=workers or os.cpu_count() or 1,
            on_notices=accept,
            on_progress=advance,
        )
    if json:
        settings = {"strength": strength, "seed": seed}
        built = {**asdict(report), "folder": str(report.folder), "notices": notices.records()}
        console.print_json({"command": "waterbirds build", **settings, **built})
    else:
        _print_report(report)
    console.print_notices(notices)
    if notices.incomplete:
        raise typer.Exit(ExitCode.PARTIAL)


def _print_report(report: BuildReport) -> None:
    table = Table("split", box=None, pad_edge=False)
    for name in report.classes:
        for place in report.places:
            table.add_column(Text(f"{name} on {place}"), justify="right")
    for split, counts in report.counts.items():
        table.add_row(Text(split, "bold"), *(f"{count:,}" for count in counts))
    console.out.print(table)
    kept = f", {report.kept:,} were there already" if report.kept else ""
    console.out.print(Text(f"wrote {report.written:,} images into {report.folder}{kept}", "dim"), soft_wrap=True)
