"""``clippy compare``: two stored evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.reporting.evaluation.figures import BITS, figure, metric_name, percent, points

if TYPE_CHECKING:
    from clippy_cli.evaluation.compare import Comparison, PairedResult

_SHOWN_CLASSES = 15


def compare(
    a: Annotated[
        Path,
        typer.Argument(metavar="A", help="result.json of clippy evaluate --out, or its folder.", show_default=False),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same sets.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Compare two evaluations on the images that both have counted.

    Each set and task of both gets both figures, their difference (B minus A) with a 95 % interval from a paired
    bootstrap over images, and the classes that changed most. Whatever was not the same in the two runs is named.

    \b
    Examples:
      clippy compare a/result.json b/result.json
      clippy compare runs/before runs/after --json
    """
    from dataclasses import asdict

    from clippy_cli.evaluation.compare import compare as compare_files

    with console.status("comparing"):
        comparison = compare_files(a, b)
    if json:
        import json as serializer

        document = {"command": "compare", **asdict(comparison)}
        console.print_json(serializer.loads(serializer.dumps(document, default=str)))
    else:
        print_comparison(comparison)


def print_comparison(comparison: Comparison) -> None:
    """For each pair both figures, the difference (B minus A) with its interval, and the classes that moved most."""
    console.out.print(Text.assemble(("A ", "bold"), str(comparison.file_a)), soft_wrap=True)
    console.out.print(Text.assemble(("B ", "bold"), str(comparison.file_b)), soft_wrap=True)
    for pair in comparison.pairs:
        console.out.print()
        _print_pair(pair)
    for note in comparison.notes:
        console.out.print(Text(note, "dim"), soft_wrap=True)


def _print_pair(pair: PairedResult) -> None:
    console.out.print(
        Text.assemble(
            (pair.data, "bold"), f"  {pair.task}, A {pair.model_a}, B {pair.model_b}, {pair.images:,} images in both"
        ),
        soft_wrap=True,
    )
    console.out.print(
        Text.assemble(
            (f"{metric_name(pair.metric)} ", "bold"),
            f"A {figure(pair.metric, pair.a)}   B {figure(pair.metric, pair.b)}",
        ),
        soft_wrap=True,
    )
    console.out.print(_difference(pair), soft_wrap=True)
    if pair.classes:
        table = Table("class", box=None, pad_edge=False)
        for head in ("A", "B", "B - A"):
            table.add_column(head, justify="right")
        for entry in pair.classes[:_SHOWN_CLASSES]:
            table.add_row(Text(entry.name), percent(entry.a), percent(entry.b), points(entry.difference))
        console.out.print(table)
        if len(pair.classes) > _SHOWN_CLASSES:
            console.out.print(
                Text(f"the {_SHOWN_CLASSES} largest differences of {len(pair.classes)} classes", "dim"), soft_wrap=True
            )
    for warning in pair.warnings:
        console.out.print(Text.assemble(("not the same: ", "yellow"), warning), soft_wrap=True)


def _difference(pair: PairedResult) -> Text:
    if pair.interval is None or pair.a is None or pair.b is None:
        return Text("difference undefined", "yellow")
    unit, scale = ("bits", 1) if pair.metric in BITS else ("points", 100)
    low, high = (f"{scale * bound:+.2f}" for bound in (pair.interval.low, pair.interval.high))
    verdict = "excludes 0" if pair.interval.excludes_zero else "includes 0: no significant difference"
    return Text.assemble(
        ("B - A ", "bold"),
        (f"{scale * (pair.b - pair.a):+.2f} {unit}", "bold"),
        f"   95 % interval {low} to {high}, paired bootstrap over images, {verdict}",
    )
