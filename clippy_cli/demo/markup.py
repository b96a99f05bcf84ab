"""The parts of the page that are HTML of our own. Whatever a user or a file says is escaped."""

from __future__ import annotations

from html import escape

from clippy_cli.demo.workbench import Outcome, Row
from clippy_cli.errors import ClippyError

WELCOME = (
    '<div class="clippy-card clippy-empty"><p>The result appears here.</p>'
    "<p>Choose a photo and press the button, or click the example to see one at once.</p></div>"
)


def header(model: str) -> str:
    """Title and one line on what the page is for."""
    return (
        '<div class="clippy-header"><h1>clippy</h1>'
        "<p>Finds where things are in a photo: name them, and every pixel gets its label.<br>"
        f"<span>Model <b>{escape(model)}</b>. Photos go no further than the computer that runs this page.</span>"
        "</p></div>"
    )


def result(outcome: Outcome) -> str:
    """A table with a bar for each row's fraction."""
    heads = "".join(
        f"<th{' class=n' if place else ''}>{escape(column)}</th>" for place, column in enumerate(outcome.columns)
    )
    body = "".join(_line(row, len(outcome.columns)) for row in outcome.rows)
    note = f'<p class="clippy-note">{escape(outcome.note)}</p>' if outcome.note else ""
    return (
        f'<div class="clippy-card" role="status"><h2>{escape(outcome.title)}</h2>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{note}</div>"
    )


def problem(error: ClippyError) -> str:
    """A message in place of a result."""
    hint = f"<p>{escape(error.hint)}</p>" if error.hint else ""
    return f'<div class="clippy-card clippy-problem" role="alert"><h2>{escape(error.message)}</h2>{hint}</div>'


def _line(row: Row, columns: int) -> str:
    rgb = "rgb({}, {}, {})".format(*row.colour) if row.colour else "var(--clippy-plain)"
    swatch = f'<i class="clippy-swatch" style="background: {rgb}"></i>' if row.colour else ""
    bar = f'<i class="clippy-bar"><i style="width: {100 * row.fraction:.1f}%; background: {rgb}"></i></i>'
    cells = f"<td><span>{swatch}{escape(row.name)}</span>{bar}</td><td class=n>{100 * row.fraction:.1f} %</td>"
    if columns > 2:
        cells += f"<td class=n>{'' if row.score is None else f'{row.score:.3f}'}</td>"
    return f"<tr{'' if row.fraction else ' class=clippy-absent'}>{cells}</tr>"
