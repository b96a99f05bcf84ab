"""Checkpoints: everything that the next step depends on, in one file that is either whole or absent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from torch import Tensor

from clippy_cli.data.identity import DataIdentity
from clippy_cli.data.streams import START, Position
from clippy_cli.errors import ClippyError, first_line
from clippy_cli.model.weight_files import check_finite, check_tensors, check_weight_file
from clippy_cli.recipe.loading import SAME_BUT_FOR_ROUNDING, changed_fields
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.best import Best

_NAME = re.compile(r"step-[0-9]{8,}\.pt")
OPTIMIZER_PARTS = 16
_EARLIER = "Delete this file; --resume then takes the checkpoint before it."
Count = Annotated[int, Field(ge=0)]


@with_config(ConfigDict(arbitrary_types_allowed=True, extra="forbid"))
@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` updates.

    Attributes:
        model, optimizer, scaler: state dictionaries.
        logit_bias: of the sigmoid loss; None for the softmax one.
        recipe: the dumped recipe of the run.
        processes: how many trained together.
        positions: where each process's stream of shards stands; zeros where samples are numbered.
        samples: in the training data.
        broken: sample number -> what is wrong with it, of the samples seen so far.
        best: figure, step and value of the best step so far.
        terms: name -> state of each loss term that has any; empty in checkpoints of earlier versions.
        data: (F,2) int64, the hashes of a :class:`DataIdentity`; None in checkpoints of earlier versions.
    """

    step: Count
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    logit_bias: float | None
    recipe: dict[str, Any]
    processes: Annotated[int, Field(ge=1)]
    positions: list[tuple[Count, Count, Count]]
    samples: Count
    broken: dict[Count, str]
    best: dict[str, Any]
    terms: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    data: Tensor | None = None


_CHECKPOINT = TypeAdapter(Checkpoint)


@dataclass
class RunState:
    """Where a run stands, between steps.

    Attributes:
        step: finished steps.
        position: where this process's stream of shards stands.
        broken: sample number -> what is wrong with it, of the samples seen so far.
        saved: the newest checkpoint.
        data: the hashes of the data's identity, in the first process.
    """

    best: Best
    step: int = 0
    position: Position = START
    broken: dict[int, str] = field(default_factory=dict)
    saved: Path | None = None
    data: Tensor | None = None

    @classmethod
    def resumed(cls, checkpoint: Checkpoint, path: Path, best: Best, rank: int) -> RunState:
        """What process ``rank`` goes on from; ``best`` takes over what the checkpoint at ``path`` says of it."""
        best.restore(checkpoint.best)
        known = rank < len(checkpoint.positions)
        position = Position(*checkpoint.positions[rank]) if known else START
        return cls(best, checkpoint.step, position, dict(checkpoint.broken), path)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write ``step-NNNNNNNN.pt`` whole or not at all, then delete all but the newest ``keep`` and the best.

    Tensors go to the file one by one, so that saving needs no second copy of them. OSError where it cannot be written;
    what was there before is then still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, checkpoint.step)
    for left_by_a_kill in folder.glob("step-*.tmp"):
        if _NAME.fullmatch(left_by_a_kill.with_suffix(".pt").name):
            left_by_a_kill.unlink()
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(vars(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except RuntimeError as error:  # how PyTorch's writer reports a full disk
        raise _disk_error(error) from error
    finally:
        temporary.unlink(missing_ok=True)
    best = checkpoint.best.get("step")
    protected = None if best is None else _path(folder, best)
    for old in _checkpoints(folder)[:-keep]:
        if old != protected:
            old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, None where there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Map a checkpoint into memory; it holds tensors and plain values only, no code is run.

    Tensors are read from the file when they are copied, so that resuming needs no second copy of them. ClippyError
    where the checksum of a part is wrong (all are read for that, once a process), or a part is missing or of another
    type.
    """
    try:
        check_weight_file(path)
        fields = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint = _CHECKPOINT.validate_python(fields)
        check_tensors(checkpoint.model, path)
        return checkpoint
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise _unreadable(path, f"{where}: {first['msg']}") from error
    except ClippyError as error:
        raise _unreadable(path, error.message) from error
    except Exception as error:  # torch lets through whatever its parts raise on bad bytes
        raise _unreadable(path, first_line(error)) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """The model's state; ClippyError as :func:`load_checkpoint`, and where a value is NaN or inf."""
    state = load_checkpoint(path).model
    check_finite(state.items(), f"The checkpoint {path}")
    return state


def load_optimizer(path: Path) -> dict[str, Any]:
    """The optimiser's state, copied from the file a part at a time.

    Pages of a mapped file count as the process's memory until the file is let go, so that a resumed run would need
    more of it than one that never stopped.
    """
    stored = load_checkpoint(path).optimizer
    with restoring(path):
        numbers, groups = list(stored["state"]), stored["param_groups"]
        del stored
        state: dict[int, dict[str, Any]] = {}
        size = max(1, len(numbers) // OPTIMIZER_PARTS)
        for start in range(0, len(numbers), size):
            part = load_checkpoint(path).optimizer["state"]
            for number in numbers[start : start + size]:
                state[number] = {
                    name: value.clone() if isinstance(value, Tensor) else value for name, value in part[number].items()
                }
            del part
    return {"state": state, "param_groups": groups}


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """A block that gives a run what the checkpoint holds; whatever does not fit there is one ClippyError."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _unreadable(path, f"it does not fit the run ({type(error).__name__}: {first_line(error)})") from error


def check_fits(checkpoint: Checkpoint, recipe: Recipe, processes: int, path: Path, *, inexact: bool) -> None:
    """Raise ClippyError that names what would make the run take another course than the checkpoint's.

    With ``inexact``, other chunks, compilation or number of processes are let through: samples, draws and learning
    rates stay the same, sums are rounded differently and dropout zeroes other units. A stream of shards is divided by
    the number of processes, so that it never may change.
    """
    changed = changed_fields(_with_new_fields(checkpoint.recipe), recipe.model_dump(mode="json"))
    streamed = any(any(position) for position in checkpoint.positions)
    if inexact:
        changed = [field for field in changed if field not in SAME_BUT_FOR_ROUNDING]
    if changed:
        exact = "" if inexact or not set(changed) <= set(SAME_BUT_FOR_ROUNDING) else " Or add --inexact."
        raise ClippyError(
            f"{path} cannot go on with this recipe: it differs from the run's own in {', '.join(changed)}.",
            f"Undo the change, or start another run with --set output=FOLDER.{exact}",
        )
    if checkpoint.processes != processes and (streamed or not inexact):
        remedy = (
            "its shards are divided among them" if streamed else "or add --inexact: only rounding and dropout differ"
        )
        raise ClippyError(
            f"{path} was trained by {checkpoint.processes} processes, and now there are {processes}.",
            f"Launch it with --nproc-per-node and --nnodes that make {checkpoint.processes}; {remedy}.",
        )


def check_data(checkpoint: Checkpoint, samples: int, path: Path, *, inexact: bool) -> None:
    """Raise ClippyError where the data holds more or fewer samples than the run's did: every draw would be another."""
    if checkpoint.samples != samples and not inexact:
        raise ClippyError(
            f"{path} was trained on {checkpoint.samples} samples, and now there are {samples}: "
            "an order drawn from these repeats some and leaves out others.",
            "Look for damaged or missing files with clippy data check, and bring them back; or add --inexact.",
        )


def check_identity(data: Tensor | None, identity: DataIdentity, path: Path, *, inexact: bool) -> tuple[str, ...]:
    """What of the data is not as it was for the run in ``path``; ClippyError that names it, unless ``inexact``."""
    changes = identity.changes(data.numpy()) if data is not None else ()
    if changes and not inexact:
        raise ClippyError(
            f"{path} was trained on other data: {'; '.join(changes)}.",
            "Bring the data back as it was (clippy data check names what is damaged; cp -p and rsync -a keep times), "
            "start another run with --set output=FOLDER, or go on with the data of now: --inexact.",
        )
    return changes


def _unreadable(path: Path, why: str) -> ClippyError:
    return ClippyError(f"The checkpoint {path} cannot be read: {why}", _EARLIER)


def _with_new_fields(dumped: dict[str, Any]) -> dict[str, Any]:
    """A dumped recipe with the defaults of fields that it did not have when it was written."""
    try:
        return Recipe.model_validate(dumped).model_dump(mode="json")
    except ValidationError:  # a field is gone or means something else now; it will show among the changed ones
        return dumped


def _disk_error(error: BaseException) -> OSError:
    """What the disk said, which PyTorch's writer hides behind an error of its own."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__context__
    return inner or OSError(first_line(error))


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def _checkpoints(folder: Path) -> list[Path]:
    """From the first step to the last; copies under other names are the user's."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))
