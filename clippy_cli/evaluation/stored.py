"""Reads what an evaluation has left on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.result import SCHEMA, Document, ImageRecord, TaskResult
from clippy_cli.files import stays_below
from clippy_cli.regular_files import is_folder, read_text

DOCUMENT_NAME = "result.json"
_RENAMED = {"jaccard_best": "average_best_overlap"}  # what earlier versions called a metric -> what it is called now
_log = logging.getLogger(__name__)


def load_document(path: Path) -> tuple[Path, Document]:
    """The file, or ``result.json`` of the folder, and what it holds.

    ClippyError where there is none, or it is not JSON, of another schema version, or not as the schema says.
    """
    file = path / DOCUMENT_NAME if is_folder(path) else path
    again = "Give the result.json that clippy evaluate --out wrote, or its folder."
    try:
        content: Any = json.loads(read_text(file))
    except FileNotFoundError:
        raise ClippyError(f"{file}: no such file", again) from None
    except OSError as error:
        raise ClippyError(f"{file}: cannot be read ({error.strerror or error})", again) from error
    except (ValueError, RecursionError) as error:
        raise ClippyError(f"{file}: not JSON ({error})", again) from error
    stated = content.get("schema") if isinstance(content, dict) else None
    if stated != SCHEMA:
        found = f"its schema is {stated!r}" if stated is not None else "it names no schema"
        raise ClippyError(
            f"{file}: {found}, not {SCHEMA!r}",
            "Run the evaluation again with this version of clippy, or compare with the version that wrote the file.",
        )
    _rename_metrics(file, content)
    try:
        return file, Document.model_validate(content)
    except ValidationError as error:
        raise ClippyError(f"{file}: not as {SCHEMA} says: {_first(error)}", "Run the evaluation again.") from error


def load_images(file: Path, result: TaskResult) -> dict[str, ImageRecord]:
    """The images of one result of ``file`` that count, by key, in the set's order.

    ClippyError where the result names no file of images, or that file is absent, outside the folder of ``file``, or has
    a line that is no record.
    """
    what = f"{result.data.name} ({result.task}) of {file}"
    remedy = "Run the evaluation again with --out; comparing needs the figures of each image."
    if result.images_file is None:
        raise ClippyError(f"{what}: no file of per-image figures is named", remedy)
    images = file.parent / result.images_file
    if not stays_below(result.images_file):
        raise ClippyError(f"{what}: {result.images_file} lies outside {file.parent}", remedy)
    try:
        lines = read_text(images).split("\n")
    except FileNotFoundError:
        raise ClippyError(
            f"{what}: {images} is missing", "Copy it beside result.json again, or run the evaluation again."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{images}: cannot be read ({error})", remedy) from error
    records = [_record(images, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    records.sort(key=lambda record: record.index)
    counted = {record.key: record for record in records if record.error is None}
    if len(counted) != result.data.images:
        raise ClippyError(
            f"{what}: {images} holds {len(counted):,} images that count, and {file.name} says {result.data.images:,}.",
            f"One of both was cut short or changed. {remedy}",
        )
    return counted


def _rename_metrics(file: Path, content: dict[str, Any]) -> None:
    """Give metrics of an earlier version the names they have now, in place, and say so once."""
    found = set[str]()
    results = content.get("results")
    for result in results if isinstance(results, list) else []:
        for part in ("metrics", "definitions"):
            values = result.get(part) if isinstance(result, dict) else None
            if isinstance(values, dict):
                found |= values.keys() & _RENAMED.keys()
                result[part] = {_RENAMED.get(key, key): value for key, value in values.items()}
    for old in sorted(found):
        _log.warning("%s: the metric %s is now called %s, the same figure", file, old, _RENAMED[old])


def _record(file: Path, number: int, line: str) -> ImageRecord:
    try:
        record = ImageRecord.model_validate_json(line)
        return record.model_copy(update={"scores": {_RENAMED.get(k, k): v for k, v in record.scores.items()}})
    except ValidationError as error:
        raise ClippyError(
            f"{file}, line {number}: no record of an image: {_first(error)}", "Run the evaluation again."
        ) from error


def _first(error: ValidationError) -> str:
    """The first of the errors: where it is and what it says."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]
