"""The table of a suite as papers print it: one row per model, one column per set, the average last.

Models of the literature stand below ours. A dagger marks a figure that was measured under other conditions than ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from clippy_cli.evaluation.result import Document, PublishedFigure, SuiteRecord, TaskResult
from clippy_cli.reporting.evaluation.figures import UNDEFINED, image_count, metric_name
from clippy_cli.reporting.evaluation.markdown import markdown_row, plain_markdown

_OTHER = "†"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    UNDEFINED: "--",
    _OTHER: r"$^\dagger$",
}


@dataclass(frozen=True)
class Cell:
    """A figure as text, and whether it is the best of several models that were measured."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class SuiteTable:
    """A suite's table as text.

    Attributes:
        title: the suite and its metric.
        heads: of all columns: the model, each set, the average.
        ours: the models that were measured: name, a figure for each set, average.
        published: models of the literature that have a figure on every set, in the same columns.
        notes: the protocol, what is missing, what is measured on part of the images.
    """

    title: str
    heads: tuple[str, ...]
    ours: tuple[tuple[Cell, ...], ...]
    published: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]


def suite_table(document: Document) -> SuiteTable | None:
    """The table of the document's suite, in per cent with one decimal; None without a suite."""
    suite = document.suite
    if suite is None:
        return None
    own = [result for result in document.results if result.task == suite.task and result.data.name in suite.sets]
    return SuiteTable(
        title=f"{suite.name}: {suite.title}, {metric_name(suite.metric)} in %",
        heads=("model", *suite.sets.values(), "average"),
        ours=tuple(_our_rows(suite)),
        published=tuple(_published_rows(suite, own)),
        notes=tuple(_notes(suite, own)),
    )


def suite_markdown(table: SuiteTable) -> str:
    """A Markdown table with its notes below it; the best of several models is bold."""
    rows = [[_marked(cell, plain_markdown, "**{}**") for cell in row] for row in (*table.ours, *table.published)]
    lines = [
        f"**{plain_markdown(table.title)}**",
        "",
        markdown_row([plain_markdown(head) for head in table.heads]),
        "|---|" + "---:|" * (len(table.heads) - 1),
        *map(markdown_row, rows),
        "",
        *(f"- {plain_markdown(note)}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def suite_latex(table: SuiteTable) -> str:
    """A ``table`` environment for the LaTeX package booktabs, with the notes in its caption."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'c' * (len(table.heads) - 1)}}}",
        r"\toprule",
        _latex_row(map(_latex, table.heads)),
    ]
    for rows in filter(None, (table.ours, table.published)):
        lines.append(r"\midrule")
        lines += [_latex_row(_marked(cell, _latex, r"\textbf{{{}}}") for cell in row) for row in rows]
    caption = ". ".join([table.title, *table.notes])
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_latex(caption)}.}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _our_rows(suite: SuiteRecord) -> Iterator[tuple[Cell, ...]]:
    figures = [[*row.values, row.average] for row in suite.rows]
    columns = [[value for value in column if value is not None] for column in zip(*figures, strict=True)]
    best = [max(column) if len(column) > 1 else None for column in columns]
    for row, values in zip(suite.rows, figures, strict=True):
        cells = (
            Cell(_figure(None if value is None else 100 * value), best=value is not None and value == top)
            for value, top in zip(values, best, strict=True)
        )
        yield (Cell(row.model), *cells)


def _published_rows(suite: SuiteRecord, results: Sequence[TaskResult]) -> Iterator[tuple[Cell, ...]]:
    """Models with a published figure on every set, the highest average first."""
    found: dict[str, dict[str, PublishedFigure]] = {}
    measured = ((result.data.name, result.published) for result in results)
    for name, figures in (*suite.published.items(), *measured):
        for entry in figures:
            if entry.metric == suite.metric:
                found.setdefault(entry.model, {})[name] = entry
    rows: list[tuple[float, tuple[Cell, ...]]] = []
    for model, by_set in found.items():
        if by_set.keys() >= suite.sets.keys():
            entries = [by_set[name] for name in suite.sets]
            average = sum(entry.value for entry in entries) / len(entries)
            cells = (_published_cell(entry.value, [entry]) for entry in entries)
            rows.append((average, (Cell(model), *cells, _published_cell(average, entries))))
    yield from (cells for _, cells in sorted(rows, key=lambda row: row[0], reverse=True))


def _published_cell(value: float, entries: Sequence[PublishedFigure]) -> Cell:
    return Cell(_figure(value) + ("" if all(entry.comparable for entry in entries) else _OTHER))


def _notes(suite: SuiteRecord, results: Sequence[TaskResult]) -> Iterator[str]:
    names = list(dict.fromkeys(str(result.protocol.get("name", "")) for result in results))
    yield f"Protocol {', '.join(names)}; result.json says what it was for each set"
    if suite.missing:
        missing = "; ".join(f"{name} ({where})" for name, where in suite.missing.items())
        yield f"Not measured, so that there is no average: {missing}"
    parts = dict.fromkeys(f"{result.data.name} {image_count(result)}" for result in results if result.data.subset)
    if parts:
        yield f"Measured on part of the images: {', '.join(parts)}"
    if any(_OTHER in cell.text for row in _published_rows(suite, results) for cell in row):
        yield f"{_OTHER} measured under other conditions than ours, or under conditions that are not known"


def _figure(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.1f}"


def _marked(cell: Cell, escape: Callable[[str], str], form: str) -> str:
    return form.format(escape(cell.text)) if cell.best else escape(cell.text)


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
