"""Results of evaluations in the terminal, alone and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.evaluation.result import ClassScore, Document, PublishedFigure, TaskResult
from clippy_cli.reporting.evaluation.figures import (
    BITS,
    PublishedGroup,
    counted,
    counts_pixels,
    figure,
    metric_name,
    nothing_compares,
    percent,
    points,
    printed,
    published_groups,
    score_name,
    setting_name,
    side_by_side,
    why_undefined,
    worst_order,
    written,
)
from clippy_cli.reporting.evaluation.suite import suite_table

if TYPE_CHECKING:
    from clippy_cli.evaluation.compare import Comparison, PairedResult

_MANY_CLASSES = 40
_SHOWN_CLASSES = 15
_SHOWN_FAILURES = 3
_SHOWN_FIGURES = 6
_SHOWN_REASONS = 4
_SHOWN_TOPICS = 8
_UNKNOWN = "what is not known"


def print_summary(document: Document) -> None:
    """Sets and tasks against models: the headline figures, each under its metric's name."""
    summary = side_by_side(document)
    table = Table("set", "task", "metric", "images", box=box.SIMPLE_HEAD, pad_edge=False)
    for model in summary.models:
        table.add_column(Text(model), justify="right")
    for row in summary.rows:
        cells = []
        for cell in row.cells:
            value = None if cell is None else cell.metrics.get(row.headline)
            text = "" if cell is None else figure(row.headline, value)
            cells.append(Text(text, "bold" if value is not None and value == row.best else ""))
        table.add_row(Text(row.data), row.task, metric_name(row.headline), row.images, *cells)
    console.out.print(table)


def print_suite(document: Document) -> None:
    """The table of a suite with the literature below ours, and its notes."""
    suite = suite_table(document)
    if suite is None:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, head in enumerate(suite.heads):
        name = place == 0
        table.add_column(Text(head), justify="left" if name else "right", min_width=16 if name else None)
    console.out.print(Text(suite.title, "bold"), soft_wrap=True)
    for rows, style in ((suite.ours, ""), (suite.published, "dim")):
        for row in rows:
            table.add_row(*(Text(cell.text, "bold" if cell.best else style) for cell in row))
        table.add_section()
    console.out.print(table)
    for note in suite.notes:
        _note(note)


def print_result(result: TaskResult, worst_first: bool = False) -> None:
    """Headline, metrics, classes, protocol, published figures and failures of one result.

    Of more than 40 classes the 15 worst and the 15 best are shown; the report has them all.
    """
    console.out.print(
        Text.assemble((result.data.name, "bold"), f"  {result.task}, {result.model.name}, {counted(result)}"),
        soft_wrap=True,
    )
    console.out.print(
        Text.assemble(
            (f"{metric_name(result.headline)} ", "bold"),
            (figure(result.headline, result.metrics.get(result.headline)), "bold"),
            *(
                f"   {metric_name(key)} {figure(key, value)}"
                for key, value in result.metrics.items()
                if key != result.headline
            ),
        ),
        soft_wrap=True,
    )
    if result.metrics.get(result.headline) is None:
        _note(f"no figure: {why_undefined(result)}")
    if result.classes:
        _print_classes(result, worst_first)
    if result.absent:
        _note(f"not annotated in these images: {_some(result.absent, _SHOWN_CLASSES)}")
    _note("; ".join(f"{setting_name(key)}: {written(value)}" for key, value in result.protocol.items()))
    _print_published(result)
    if result.data.failed:
        shown = result.data.failed[:_SHOWN_FAILURES]
        more = len(result.data.failed) - len(shown)
        console.out.print(
            Text.assemble(
                (f"{len(result.data.failed):,} could not be used and do not count: ", "yellow"),
                "; ".join(shown) + (f"; and {more:,} more" if more else ""),
            ),
            soft_wrap=True,
        )
    console.out.print()


def print_comparison(comparison: Comparison) -> None:
    """For each pair both figures, the difference (B minus A) with its interval, and the classes that moved most."""
    console.out.print(Text.assemble(("A ", "bold"), str(comparison.file_a)), soft_wrap=True)
    console.out.print(Text.assemble(("B ", "bold"), str(comparison.file_b)), soft_wrap=True)
    for pair in comparison.pairs:
        console.out.print()
        _print_pair(pair)
    for note in comparison.notes:
        console.out.print(Text(note, "dim"), soft_wrap=True)


def _print_classes(result: TaskResult, worst_first: bool) -> None:
    order = worst_order(result.classes)
    if len(order) <= _MANY_CLASSES:
        _class_table(result, [result.classes[index] for index in (order if worst_first else range(len(order)))])
        return
    defined = [result.classes[index] for index in order if result.classes[index].score is not None]
    low, rest = defined[:_SHOWN_CLASSES], defined[_SHOWN_CLASSES:]
    high = rest[-_SHOWN_CLASSES:]
    if not defined:
        _note(f"none of the {len(order)} classes has a figure")
        return
    _note(f"the {len(low)} worst" + (f" and the {len(high)} best" if high else "") + f" of {len(order)} classes")
    _class_table(result, low)
    if high:
        _class_table(result, high[::-1])


def _class_table(result: TaskResult, classes: list[ClassScore]) -> None:
    with_accuracy = any(entry.accuracy is not None for entry in classes)
    table = Table("class", box=None, pad_edge=False)
    table.add_column(score_name(result), justify="right")
    if with_accuracy:
        table.add_column("accuracy", justify="right")
    table.add_column("pixels" if counts_pixels(result) else "images", justify="right")
    for entry in classes:
        accuracy = [percent(entry.accuracy)] if with_accuracy else []
        table.add_row(Text(entry.name), percent(entry.score), *accuracy, f"{entry.count:,}")
    console.out.print(table)


def _print_published(result: TaskResult) -> None:
    """One line for each metric and reason; where reasons are several, how often each thing differs."""
    if nothing_compares(result):
        _note("no published figure here was measured as this one was, as far as is known")
    others: dict[str, list[PublishedGroup]] = {}
    for group in published_groups(result):
        if group.why_not:
            others.setdefault(group.metric, []).append(group)
        else:
            console.out.print(Text(f"published {metric_name(group.metric)}: {_listed(group.figures)}"), soft_wrap=True)
    for metric, groups in others.items():
        title = f"published {metric_name(metric)}, not comparable"
        if len(groups) == 1:
            reasons = _some(groups[0].why_not.split("; "), _SHOWN_REASONS, between="; ")
            _note(f"{title} ({reasons}): {_listed(groups[0].figures)}")
        else:
            figures = sorted((entry for group in groups for entry in group.figures), key=lambda entry: -entry.value)
            _note(f"{title}: {_listed(figures)}")
            _note(f"    what differs: {_topics(groups)}; report.html has it of each")


def _topics(groups: Sequence[PublishedGroup]) -> str:
    """What the reasons are about, the most frequent first, with the number of figures where it is not all of them."""
    total = sum(len(group.figures) for group in groups)
    counts = Counter[str]()
    for group in groups:
        for topic in dict.fromkeys(reason.partition(":")[0] for reason in group.why_not.split("; ")):
            counts[_UNKNOWN if topic == "not known" else topic] += len(group.figures)
    described = [topic if count == total else f"{topic} ({count} of {total})" for topic, count in counts.most_common()]
    return _some(described, _SHOWN_TOPICS)


def _listed(figures: Sequence[PublishedFigure]) -> str:
    return _some([f"{entry.model} {printed(entry.value)}" for entry in figures], _SHOWN_FIGURES)


def _some(texts: Sequence[str], most: int, between: str = ", ") -> str:
    more = len(texts) - most
    return between.join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")


def _note(text: str) -> None:
    console.out.print(Text(text, "dim"), soft_wrap=True)


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
