"""What a run leaves on disk: recipe, log, loss plot, checkpoints, cache and the model."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from clippy_cli.files import require_empty, write_whole
from clippy_cli.notices import printable
from clippy_cli.recipe.loading import dump_recipe
from clippy_cli.recipe.schema import Recipe
from clippy_cli.recipe.smoke import is_smoke
from clippy_cli.regular_files import read_bytes, read_text
from clippy_cli.training.events import (
    BestChanged,
    CheckpointFailed,
    CheckpointSaved,
    Event,
    SetsEvaluated,
    StepReport,
    Validated,
)

LOGGED: Mapping[type[Event], str] = {
    StepReport: "step",
    Validated: "validation",
    SetsEvaluated: "evaluation",
    CheckpointSaved: "checkpoint",
    CheckpointFailed: "checkpoint failed",
    BestChanged: "best",
}
MEASURED = ("validation", "evaluation")
SMOKE_FILES = (  # what a smoke run leaves: no TensorBoard, no W&B
    *("checkpoints", "cache", "shards", "best", "model", "evaluations", "evaluation.json", "log.jsonl", "loss.png"),
    "recipe.yaml",  # the last, so that a killed removal is gone on with
)
logger = logging.getLogger(__name__)


class RunFolder:
    """The paths of a run, and its JSONL log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "recipe.yaml"
        self.log = root / "log.jsonl"
        self.plot = root / "loss.png"
        self.checkpoints = root / "checkpoints"
        self.cache = root / "cache"
        self.shards = root / "shards"
        self.best = root / "best"
        self.model = root / "model"
        self._unwritten, self._log_failed = bytearray(), False

    def refuse_if_used(self, *, throwaway: bool = False) -> None:
        """ClippyError where the folder holds anything; with ``throwaway`` what an earlier smoke run left is removed."""
        if throwaway and self._is_of_smoke_run():
            for name in SMOKE_FILES:
                path = self.root / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        require_empty(self.root, "Continue it with --resume, or keep it and write elsewhere: --set output=FOLDER")

    def _is_of_smoke_run(self) -> bool:
        try:
            return is_smoke(Recipe.model_validate(yaml.safe_load(read_text(self.recipe))))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):  # pydantic's errors are ValueErrors
            return False

    def prepare(self, recipe: Recipe, first_step: int, *, finished: bool) -> None:
        """Create the folder, write the resolved recipe, and forget log lines past ``first_step``.

        A run that has finished measures the model once more, so that it also forgets what was measured after it.
        """
        resolved = dump_recipe(recipe, first_line=f"clippy train {self.recipe}").encode()
        again = MEASURED if finished else ()
        kept = [
            json.dumps(_plain(record), allow_nan=False) + "\n"
            for record in self.records()
            if record["step"] <= first_step and not (record["step"] == first_step and record["event"] in again)
        ]
        write_whole(self.recipe, lambda file: file.write(resolved))
        write_whole(self.log, lambda file: file.write("".join(kept).encode()))

    def append(self, event: Event) -> None:
        """Add an event to the log, one JSON object a line.

        A full disk stops nothing: it is warned about, and the lines are kept until there is space.
        """
        if type(event) in LOGGED:
            fields = dataclasses.asdict(event)
            record = {"event": LOGGED[type(event)]} | {name: _plain(value) for name, value in fields.items()}
            self._unwritten += (json.dumps(record, allow_nan=False) + "\n").encode()
            try:
                with self.log.open("ab", buffering=0) as file:
                    while self._unwritten:
                        del self._unwritten[: file.write(self._unwritten)]
                self._log_failed = False
            except OSError as error:
                if not self._log_failed:
                    logger.warning("%s cannot be written (%s); training goes on", self.log, error.strerror)
                self._log_failed = True

    def records(self) -> list[dict[str, Any]]:
        """The log so far; lines that are no records are left out with a warning, a last one cut short without."""
        if not self.log.is_file():
            return []
        lines = read_bytes(self.log).split(b"\n")
        records = [_record(line) for line in lines[:-1]]
        damaged = [number for number, record in enumerate(records, start=1) if record is None]
        if damaged:
            logger.warning(
                "%s: %d lines are damaged and left out, the first is line %d", self.log, len(damaged), damaged[0]
            )
        return [record for record in records if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(record, dict)
        or type(record.get("step")) is not int
        or record.get("event") not in LOGGED.values()
    ):
        return None
    measured = record["event"] in ("step", "validation")
    return None if measured and not isinstance(record.get("loss"), int | float | None) else record


def draw_loss(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG of training and validation loss over steps from log ``records``; nothing where there are none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [record for record in records if record["event"] == "step"]
    validations = [record for record in records if record["event"] == "validation"]
    if not steps:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([record["step"] for record in steps], [record["loss"] for record in steps], label="training")
    if validations:
        axes.plot([r["step"] for r in validations], [r["loss"] for r in validations], "o-", label="validation")
    axes.set(xlabel="step", ylabel="contrastive loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _plain(value: Any) -> Any:
    """What JSON can say: paths as text, numbers that are NaN or inf as null, at any depth."""
    if isinstance(value, Path):
        return printable(str(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
