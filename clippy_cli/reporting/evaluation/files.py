"""The files of an evaluation: ``result.json``, figures of single images, the report and a Markdown table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from clippy_cli.evaluation.journal import write_lines
from clippy_cli.evaluation.result import Document, TaskResult
from clippy_cli.evaluation.set_evaluation import SetEvaluation
from clippy_cli.evaluation.stored import DOCUMENT_NAME
from clippy_cli.files import write_whole
from clippy_cli.regular_files import read_text
from clippy_cli.reporting.evaluation.markdown import markdown_rows
from clippy_cli.reporting.evaluation.report import Example, write_report
from clippy_cli.reporting.evaluation.suite import suite_latex, suite_markdown, suite_table
from clippy_cli.reporting.files import safe_name
from clippy_cli.reporting.products import save_json

JOURNALS = "unfinished"
_IMAGES = "images"
FILES = (DOCUMENT_NAME, "report.html", "report.md", "suite.md", "suite.tex", f"{_IMAGES}/", f"{JOURNALS}/")
_COMMAND = "command.txt"


def save_images(out: Path, evaluations: Sequence[SetEvaluation]) -> tuple[TaskResult, ...]:
    """Write the figures of single images, and return the results with the names of those files in them."""
    taken: set[str] = set()
    results = []
    for evaluation in evaluations:
        for result in evaluation.results:
            name = f"{safe_name(f'{result.data.name}-{result.model.name}-{result.task}', taken)}.jsonl"
            lines = write_lines(evaluation.records[result.task])
            write_whole(out / _IMAGES / name, lambda stream, lines=lines: stream.write(lines))  # type: ignore[misc]
            results.append(result.model_copy(update={"images_file": f"{_IMAGES}/{name}"}))
    return tuple(results)


def save_document(out: Path, document: Document, examples: Sequence[Sequence[Example]]) -> list[Path]:
    """Write ``result.json``, ``report.html``, ``report.md`` and a suite's two tables, each whole or not at all."""
    texts = {"report.md": markdown_rows(document)}
    suite = suite_table(document)
    if suite is not None:
        texts |= {"suite.md": suite_markdown(suite), "suite.tex": suite_latex(suite)}
    return [
        save_json(out / DOCUMENT_NAME, document.model_dump(by_alias=True)),
        write_report(out / "report.html", document, examples),
        *(_write_text(out / name, text) for name, text in texts.items()),
    ]


def _write_text(path: Path, text: str) -> Path:
    return write_whole(path, lambda stream: stream.write(text.encode()))


def note_command(out: Path, command: str) -> None:
    """Write down which command has begun in ``out``; kept until it has finished."""
    _write_text(out / JOURNALS / _COMMAND, command + "\n")


def is_unfinished(out: Path, command: str) -> bool:
    """Whether ``command`` has begun in ``out`` and not finished."""
    try:
        return read_text(out / JOURNALS / _COMMAND) == command + "\n"
    except (OSError, UnicodeDecodeError):
        return False


def remove_journals(out: Path, evaluations: Sequence[SetEvaluation]) -> None:
    """Delete what was noted for an interruption, now that results are written."""
    for evaluation in evaluations:
        for journal in evaluation.journals:
            journal.remove()
    folder = out / JOURNALS
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {_COMMAND}:
        shutil.rmtree(folder, ignore_errors=True)
