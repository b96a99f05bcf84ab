"""Checkpoints: everything that the next step depends on, in one file that is either whole or absent."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.recipe import changed_fields


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` updates.

    Attributes:
        model, optimizer, scaler: state dictionaries.
        recipe: the dumped recipe of the run.
        broken: sample number -> what is wrong with it, of the samples seen so far.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    recipe: dict[str, Any]
    broken: dict[int, str]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write ``step-NNNNNNNN.pt`` under a temporary name, rename it, then delete all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(asdict(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise ClippyError(
            f"The checkpoint {path} could not be written: {error}", "Free disk space, then go on with --resume."
        ) from error
    for old in _checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, None where there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint on the CPU; it holds tensors and plain values only, no code is run."""
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**fields)
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise ClippyError(
            f"The checkpoint {path} cannot be read: {str(error).splitlines()[0]}",
            "Delete this file; --resume then takes the checkpoint before it.",
        ) from error


def check_same_recipe(checkpoint: Checkpoint, recipe: dict[str, Any], path: Path) -> None:
    """Raise ClippyError that names the fields by which ``recipe`` would take another course than the checkpoint's."""
    changed = changed_fields(checkpoint.recipe, recipe)
    if changed:
        raise ClippyError(
            f"{path} cannot go on with this recipe: it differs from the run's own in {', '.join(changed)}.",
            "Undo the change, or start another run with --set output=FOLDER.",
        )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
