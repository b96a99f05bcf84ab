"""``clippy waterbirds analyse``: what of an embedding is the object and what its background."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import load_bare_model
from clippy_cli.commands.results_folder import results_folder
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.notices import Notices

if TYPE_CHECKING:
    from clippy_cli.evaluation.result import NoticeRecord
    from clippy_cli.waterbirds.analyse.figures import PictureMethod
    from clippy_cli.waterbirds.analyse.result import AnalysisDocument

_OUT = Path("clippy_out/waterbirds_analysis")


def waterbirds_analyse(
    birds: options.Birds,
    backgrounds: options.Backgrounds,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=f"Folder for analysis.json, analysis.html and the pictures. Default: {_OUT}, or {_OUT}-2 and so on "
            "where that holds earlier results.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    model: options.Models = None,
    objects: Annotated[
        int, typer.Option(min=4, max=1000, metavar="N", help="Objects to take, half of each class.")
    ] = 40,
    scenes: Annotated[
        int, typer.Option(min=4, max=64, metavar="N", help="Backgrounds to paste each on, half of each place.")
    ] = 8,
    resolution: Annotated[
        int, typer.Option(min=1, metavar="PIXELS", help="Short side that images are resized to; aspect is kept.")
    ] = 224,
    method: Annotated[str, typer.Option(metavar="pca|tsne", help="How the picture of the embeddings is made.")] = "pca",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Draws objects and backgrounds.")] = 0,
    batch_size: options.BatchSize = 16,
    workers: options.Workers = 2,
    device: options.Device = "auto",
    strict: options.Strict = False,
    json: options.Json = False,
) -> None:
    """Paste the same objects on many backgrounds, and see how far that moves a model's embeddings.

    \b
    pooled        the embedding of the whole image
    bird patches  the mean of the patches on the object

    \b
    drift  how far an object's embedding moves with its background, 0 to 1
    class, place, object  share of the embeddings' variance that each explains

    \b
    Examples:
      clippy waterbirds analyse --birds CUB --backgrounds places365 --out analysis
      clippy waterbirds analyse --birds pets --backgrounds scenes --out pets --model runs/cls --model runs/max
    """
    from functools import partial

    from clippy_cli.model.sources.loading import check_source
    from clippy_cli.waterbirds.analyse.run import AnalysisSettings
    from clippy_cli.waterbirds.build.backgrounds import open_backgrounds
    from clippy_cli.waterbirds.build.foregrounds import open_foregrounds
    from clippy_cli.waterbirds.measure.run import ModelRun
    from clippy_cli.waterbirds.run import ANALYSIS_FILES, report_analysis

    drawn_by = _parse_method(method)
    with console.status("looking for objects and backgrounds"):
        cut_out, places = open_foregrounds(birds), open_backgrounds(backgrounds)
    if strict:
        Notices([*cut_out.notices, *places.notices]).refuse("The input")
    sources = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    for source in sources:
        check_source(source)
    command = shlex.join(["clippy", *sys.argv[1:]])
    bar = partial(console.progress, unit="images")
    load = partial(load_bare_model, device=device)
    models = ModelRun(sources, load, batch_size, workers, command, bar, strict)
    settings = AnalysisSettings(objects, scenes, resolution, drawn_by, seed)
    with results_folder(out, _OUT, ANALYSIS_FILES, work="clippy waterbirds analyse", overwrite=overwrite) as folder:
        report = report_analysis(models, cut_out, places, settings, folder)
    document = report.document
    if json:
        console.print_json(document.model_dump(by_alias=True))
    else:
        print_analysis(document)
        print_written(report.written)
    leave(document.failed, document.notices)


def print_analysis(document: AnalysisDocument) -> None:
    """A line for each model and readout."""
    from clippy_cli.reporting.evaluation.figures import percent

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("readout", no_wrap=True)
    for heading in ("drift", "95 % CI", "class", "place", "object"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in document.results:
        table.add_row(
            Text(result.model.name),
            result.readout,
            Text(f"{result.drift:.3f}", "bold"),
            f"{result.drift_low:.3f}–{result.drift_high:.3f}",
            percent(result.class_share),
            percent(result.place_share),
            percent(result.object_share),
        )
    console.out.print(table)
    first = document.results[0]
    console.out.print(
        Text(
            f"{first.objects} objects on {first.backgrounds} backgrounds; class, place and object: share of the "
            f"variance that each explains ({percent(first.object_chance)} for labels drawn at random)",
            "dim",
        ),
        soft_wrap=True,
    )


def leave(failed: Sequence[str], noted: Sequence[NoticeRecord], *, any_used: bool = True) -> None:
    """Print what was not used and the notices; leave with the exit code where images failed or were skipped."""
    for message in failed:
        console.err.print(Text.assemble(("skipped: ", "yellow"), message), soft_wrap=True)
    notices = Notices(record.notice() for record in noted)
    console.print_notices(notices)
    if failed or notices.incomplete:
        raise typer.Exit(ExitCode.PARTIAL if any_used else ExitCode.FAILED)


def print_written(files: Iterable[Path]) -> None:
    """One line that names the files of a report."""
    console.out.print(Text(f"wrote {', '.join(map(str, files))}", "dim"), soft_wrap=True)


def _parse_method(text: str) -> PictureMethod:
    from clippy_cli.waterbirds.analyse.figures import PictureMethod

    try:
        return PictureMethod(text)
    except ValueError:
        raise ClippyError(f"--method cannot be {text!r}", f"Choose among {', '.join(PictureMethod)}.") from None
