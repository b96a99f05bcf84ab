"""What a run leaves on disk: recipe, log, loss plot, checkpoints, cache and the model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clippy_cli.errors import ClippyError
from clippy_cli.recipe import dump_recipe
from clippy_cli.recipe_schema import Recipe
from clippy_cli.training.events import CheckpointSaved, Event, StepReport, Validated

LOGGED: Mapping[type[Event], str] = {StepReport: "step", Validated: "validation", CheckpointSaved: "checkpoint"}


class RunFolder:
    """The paths of a run, and its JSONL log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "recipe.yaml"
        self.log = root / "log.jsonl"
        self.plot = root / "loss.png"
        self.checkpoints = root / "checkpoints"
        self.cache = root / "cache"
        self.model = root / "model"

    def refuse_if_used(self) -> None:
        """ClippyError where the folder holds anything; nothing is ever trained over."""
        if self.root.is_dir() and (inside := sorted(path.name for path in self.root.iterdir())):
            raise ClippyError(
                f"The run folder {self.root} exists and holds {', '.join(inside[:6])}.",
                "Go on with it: --resume; or keep it and write elsewhere: --set output=FOLDER",
            )
        if self.root.exists() and not self.root.is_dir():
            raise ClippyError(f"The run folder {self.root} is a file.", "Write elsewhere: --set output=FOLDER")

    def prepare(self, recipe: Recipe, first_step: int) -> None:
        """Create the folder, write the resolved recipe, and forget log lines past ``first_step``."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.recipe.write_text(dump_recipe(recipe, first_line=f"clippy train {self.recipe}"), encoding="utf-8")
            kept = [json.dumps(record) for record in self.records() if record["step"] <= first_step]
            self.log.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        except OSError as error:
            raise ClippyError(
                f"The run folder {self.root} cannot be written: {error}", "Set another output."
            ) from error

    def append(self, event: Event) -> None:
        """Add an event to the log, one JSON object a line."""
        if type(event) in LOGGED:
            fields = dataclasses.asdict(event)
            record = {"event": LOGGED[type(event)]} | {name: _plain(value) for name, value in fields.items()}
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The log so far; a last line that a killed process left half written is skipped."""
        records = []
        if self.log.is_file():
            for line in self.log.read_text(encoding="utf-8").splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    continue
        return records


def _plain(value: Any) -> Any:
    """What JSON can say: paths as text, numbers that are none as null."""
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
