"""``clippy waterbirds``."""

from __future__ import annotations

import shlex
import sys
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
from clippy_cli.commands.waterbirds_analyse import leave, print_analysis, print_written
from clippy_cli.errors import ClippyError
from clippy_cli.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from clippy_cli.evaluation.published import PublishedWaterbirds
    from clippy_cli.waterbirds.measure.result import BirdDocument, BirdResult

_OUT = Path("clippy_out/waterbirds")
_RESOLUTION = 448  # the paper's
_ANALYSIS_RESOLUTION = 224
_BATCH = 16


def waterbirds(
    context: typer.Context,
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that holds the set, or the set itself. Default: $CLIPPY_DATA."),
    ] = None,
    model: options.Models = None,
    split: Annotated[str, typer.Option(metavar="train|val|test", help="Which images.")] = "test",
    resolution: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help=f"Short side that images are resized to; aspect is kept. Default: {_RESOLUTION}; with --demo the "
            "model's.",
        ),
    ] = None,
    resolutions: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Measure at each of these, and draw accuracy over resolution.")
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Words for the two birds and for background; | joins synonyms. Default: the names in the set.",
        ),
    ] = None,
    templates: options.Templates = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take the first N images only.")] = None,
    batch_size: options.BatchSize = _BATCH,
    workers: options.Workers = 2,
    device: options.Device = "auto",
    no_cache: options.NoCache = False,
    strict: options.Strict = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=f"Folder for waterbirds.json, waterbirds.html and the sweep's plot. Default: {_OUT}, or {_OUT}-2 and "
            "so on where that holds earlier results.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Draw birds and backgrounds, and run everything on them: no data needed.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Measure whether a model sees the bird or its background, by its pooled embedding and by its patches.

    \b
    pooled  the whole image against two prompts
    patch   every patch against three prompts; patches of the background do not
            vote, and the bird with more votes wins

    \b
    Examples:
      clippy waterbirds --demo
      clippy waterbirds --data-root ~/data
      clippy waterbirds --model runs/cls --model runs/max --out cls_or_max
      clippy waterbirds --resolutions 112,224,448,896
      clippy waterbirds build --birds ~/CUB --backgrounds ~/places --out ~/mine
    """
    if context.invoked_subcommand is not None:
        return
    from functools import partial

    from clippy_cli.data.benchmarks.base import data_root as find_root
    from clippy_cli.data.text_cache import TextCache
    from clippy_cli.model.sources.loading import check_source
    from clippy_cli.waterbirds.dataset import open_waterbirds
    from clippy_cli.waterbirds.measure.run import BirdQuestion, ModelRun
    from clippy_cli.waterbirds.run import FILES, bird_words, build_demo_set, report_demo_analysis, report_waterbirds

    if demo and data_root is not None:
        raise ClippyError("--demo draws its own birds, so --data-root says nothing", "Leave one of them out.")
    if resolution is not None and resolutions is not None:
        raise ClippyError("--resolution and --resolutions say different things", "Leave one of them out.")
    sizes: tuple[int | None, ...] = (resolution or (None if demo else _RESOLUTION),)
    if resolutions is not None:
        sizes = _parse_resolutions(resolutions)
    sources = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    for source in sources:
        check_source(source, texts=True)
    load, bar = partial(load_bare_model, device=device), partial(console.progress, unit="images")
    models = ModelRun(
        *(sources, load, batch_size, workers, shlex.join(["clippy", *sys.argv[1:]]), bar, strict),
        cache=(lambda source: None) if no_cache else TextCache.of_source,
    )
    root = None if demo else find_root(data_root)
    with results_folder(out, _OUT, FILES, work="clippy waterbirds", overwrite=overwrite) as folder:
        birds = open_waterbirds(root or build_demo_set(folder, bar), split)
        question = BirdQuestion(bird_words(birds, words), split, sizes, templates, limit)
        report = report_waterbirds(models, birds, question, folder)
        document = report.document
        if json:
            console.print_json(document.model_dump(by_alias=True))
        else:
            _print(document, birds.places)
            print_written(report.written)
        if demo:
            analysis = report_demo_analysis(models, sizes[-1] or _ANALYSIS_RESOLUTION, folder)
            if not json:
                print_analysis(analysis.document)
                print_written(analysis.written)
    leave(document.data.failed, document.notices, any_used=bool(document.data.images))


def _parse_resolutions(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ClippyError(f"--resolutions cannot be {text!r}", "Write short sides in pixels, as in 112,224,448.")
    return sizes


def _print(document: BirdDocument, places: tuple[str, str]) -> None:
    """A 2x2 table for each model, readout and resolution; side by side where there are several."""
    from clippy_cli.evaluation.published import published_waterbirds
    from clippy_cli.reporting.evaluation.figures import percent, points, written
    from clippy_cli.waterbirds.build.demo import DEMO_NOTE, DEMO_SET
    from clippy_cli.waterbirds.measure.result import model_labels

    data = document.data
    part = f"{data.images:,} of {data.complete:,}" if data.subset and data.complete else f"{data.images:,}"
    console.out.print(Text.assemble((data.title, "bold"), f"  {part} images"), soft_wrap=True)
    if data.name == DEMO_SET:
        console.out.print(Text(DEMO_NOTE, "yellow"), soft_wrap=True)
    names = model_labels(document.results)
    for result in document.results:
        console.out.print()
        console.out.print(
            Text.assemble((names[result.model], "bold"), f"  {result.readout}, {result.resolution} pixels"),
            soft_wrap=True,
        )
        table = Table("", box=None, pad_edge=False)
        for heading in (f"on {places[0]}", f"on {places[1]}", "gap", "95 % interval"):
            table.add_column(Text(heading), justify="right")
        for bird, gap in enumerate(result.gaps):
            cells = [f"{percent(group.accuracy)}" for group in result.groups[2 * bird : 2 * bird + 2]]
            interval = "" if gap.low is None else f"{points(gap.low)} to {points(gap.high)}"
            table.add_row(Text(gap.bird), *cells, points(gap.value), interval)
        console.out.print(table)
        worst = f" ({result.worst_group})" if result.worst_group else ""
        console.out.print(
            Text.assemble(
                (f"worst group {percent(result.worst)}", "bold"),
                f"{worst}   mean over groups {percent(result.mean_over_groups)}"
                f"   train-weighted {percent(result.weighted_mean)}   average {percent(result.average)}",
            ),
            soft_wrap=True,
        )
    if len(document.results) > 2:
        console.out.print(_side_by_side(document.results))
    if data.name == "waterbirds":
        shown = "; ".join(_published_line(entry) for entry in published_waterbirds())
        console.out.print(Text(f"published, not comparable: {shown}", "dim"), soft_wrap=True)
    settings = "; ".join(f"{key}: {written(value)}" for key, value in document.protocol.items())
    console.out.print(Text(settings, "dim"), soft_wrap=True)


def _published_line(entry: PublishedWaterbirds) -> str:
    figures = {
        "worst group": entry.worst_group,
        "average": entry.average,
        "water bird on water": entry.water_on_water,
        "on land": entry.water_on_land,
    }
    known = ", ".join(f"{name} {value:g}" for name, value in figures.items() if value is not None)
    return f"{entry.model} ({entry.made}) {known}"


def _side_by_side(results: tuple[BirdResult, ...]) -> Table:
    from clippy_cli.reporting.evaluation.figures import percent, points
    from clippy_cli.waterbirds.measure.result import model_labels

    names = model_labels(results)
    table = Table("model", "readout", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("pixels", "worst", "mean", *(f"gap, {gap.bird}" for gap in results[0].gaps)):
        table.add_column(Text(heading), justify="right")
    for result in results:
        table.add_row(
            Text(names[result.model]),
            result.readout,
            str(result.resolution),
            percent(result.worst),
            percent(result.mean_over_groups),
            *(points(gap.value) for gap in result.gaps),
        )
    return table
