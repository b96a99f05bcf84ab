"""An evaluation as a Markdown table, to paste into a README or notes."""

from __future__ import annotations

from clippy_cli.evaluation.result import Document
from clippy_cli.reporting.evaluation.figures import SideBySide, SideBySideRow, figure, metric_name, side_by_side


def markdown_rows(document: Document) -> str:
    """One row a model, one column a set and metric; a column's head says how its figures were made.

    Best figures are bold where models differ. Ends with a line break; empty without results.
    """
    summary = side_by_side(document)
    if not summary.rows:
        return ""
    heads = ["model", *(_head(row) for row in summary.rows)]
    lines = [markdown_row(heads), "|---|" + "---:|" * len(summary.rows)]
    lines += [markdown_row(_cells(summary, column)) for column in range(len(summary.models))]
    return "\n".join(lines) + "\n"


def _head(row: SideBySideRow) -> str:
    protocol, resolution = row.distinct("name"), row.distinct("resolution")
    made = [
        f"protocol {protocol}" if protocol else "",
        f"{resolution} px" if resolution else "",
        f"{row.images} {'image' if row.images == '1' else 'images'}",
    ]
    what, how = f"{row.data} {metric_name(row.headline)}", ", ".join(filter(None, made))
    return f"{plain_markdown(what)}<br>{plain_markdown(how)}"


def _cells(summary: SideBySide, column: int) -> list[str]:
    cells = [plain_markdown(summary.models[column])]
    for row in summary.rows:
        result = row.cells[column]
        value = None if result is None else result.metrics.get(row.headline)
        text = "" if result is None else figure(row.headline, value)
        cells.append(f"**{text}**" if value is not None and value == row.best else text)
    return cells


def markdown_row(cells: list[str]) -> str:
    """One line of a table; the cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for character in "\\`*_[]|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
