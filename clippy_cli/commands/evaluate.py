"""``clippy evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import load_model
from clippy_cli.errors import ExitCode
from clippy_cli.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from clippy_cli.evaluation.segmentation import SegmentationResult

_BATCH = 16


def evaluate(
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET...", help="voc (21 classes), voc20 (no background), scenes.")
    ],
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the data sets in their official layouts. Default: $CLIPPY_DATA."),
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    resolution: options.Resolution = None,
    templates: options.Templates = None,
    patches: Annotated[
        str | None,
        typer.Option(
            metavar="plain|centred",
            help="Patch embeddings as in the paper, or minus the mean of the training patches. Default: the model's.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take the first N images only.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as JSON to this file too.")
    ] = None,
    batch_size: options.BatchSize = _BATCH,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Measure zero-shot segmentation on benchmarks, and say under which protocol.

    Every image is segmented whole, at one scale, without refinement; one confusion matrix over the whole set gives IoU
    per class and their mean. On voc the words of the paper's public code count as background.

    \b
    Examples:
      clippy evaluate voc --resolution 448 --data-root ~/data
      clippy evaluate voc voc20 --model runs/flickr8k --out results.json
      clippy evaluate scenes --model runs/quickstart
    """
    from clippy_cli.data.benchmarks import open_benchmark
    from clippy_cli.evaluation.segmentation import evaluate_segmentation
    from clippy_cli.model.centring import with_centring
    from clippy_cli.reporting.products import save_json

    benchmarks = [open_benchmark(name, data_root) for name in datasets]
    clip = load_model(model, device)
    if patches is not None:
        clip = with_centring(clip, patches)
    results = []
    for benchmark in benchmarks:
        total = min(limit or len(benchmark), len(benchmark))
        with console.progress(f"evaluating {benchmark.name}", total) as advance:
            result = evaluate_segmentation(
                clip,
                benchmark,
                resolution=resolution or clip.defaults.resolution,
                templates=templates or clip.defaults.templates,
                limit=limit,
                batch_size=batch_size,
                on_progress=lambda done, total, advance=advance: advance(),  # type: ignore[misc]
            )
        results.append(result)
        if not json:
            print_result(result)
    document = {"command": "evaluate", "results": [result.record() for result in results]}
    if out is not None:
        save_json(out, document)
    if json:
        console.print_json(document)
    for result in results:
        for message in result.failed:
            console.err.print(Text.assemble(("skipped: ", "yellow"), message), soft_wrap=True)
    if any(result.failed for result in results):
        raise typer.Exit(ExitCode.PARTIAL if any(result.images for result in results) else ExitCode.FAILED)


def print_result(result: SegmentationResult) -> None:
    """Headline, protocol and IoU of every class."""
    from clippy_cli.evaluation.metrics import mean_class_accuracy, pixel_accuracy

    console.out.print(
        Text.assemble((f"{result.benchmark}", "bold"), f"  {result.model}, {result.images} images"), soft_wrap=True
    )
    table = Table("class", box=None, pad_edge=False)
    table.add_column("IoU", justify="right")
    for name, value in zip(result.classes, result.iou, strict=True):
        table.add_row(Text(name), _percent(value))
    console.out.print(table)
    console.out.print(
        Text.assemble(
            ("mIoU ", "bold"),
            (_percent(result.miou), "bold"),
            f"   pixel accuracy {_percent(pixel_accuracy(result.confusion))}"
            f"   mean class accuracy {_percent(mean_class_accuracy(result.confusion))}",
        ),
        soft_wrap=True,
    )
    if result.absent:
        console.out.print(Text(f"not annotated in these images: {', '.join(result.absent)}", "dim"), soft_wrap=True)
    protocol = "; ".join(f"{key}: {value}" for key, value in result.protocol.items() if value is not None)
    console.out.print(Text(protocol, "dim"), soft_wrap=True)


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.1f} %"
