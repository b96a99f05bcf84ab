"""A run's figures beside its log: TensorBoard and Weights & Biases, each where the recipe asks for it."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.extras import install_command
from clippy_cli.files import write_whole
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.events import Event, SetsEvaluated, StepReport, Validated

_log = logging.getLogger(__name__)
_NO_FIGURES = ("step", "total_steps", "seconds_left")


class Sink(Protocol):
    """One place for figures by name, such as ``train/loss``."""

    name: str

    def write(self, step: int, figures: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class Sinks:
    """The open sinks of a run; one that fails is warned about, once, and dropped: it never ends a run."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def write(self, event: Event) -> None:
        """Pass on the figures of an event, if it has any."""
        if not isinstance(event, StepReport | Validated | SetsEvaluated):
            return
        figures = event_figures(event)
        for sink in list(self._sinks):
            try:
                sink.write(event.step, figures)
            except Exception as error:  # whatever a network, a full disk and another's library come up with
                self._sinks.remove(sink)
                _log.warning("%s failed and gets no more figures of this run: %s", sink.name, first_line(error))

    def close(self) -> None:
        """Write out what is pending; to be called however the run ends."""
        while self._sinks:
            sink = self._sinks.pop()
            try:
                sink.close()
            except Exception as error:  # see write
                _log.warning("%s could not be closed: %s", sink.name, first_line(error))


def check_sinks(recipe: Recipe) -> None:
    """ClippyError where the recipe asks for a sink whose package is not installed."""
    if recipe.log.tensorboard:
        _tensorboard("summary.writer.record_writer")
    if recipe.log.wandb is not None:
        _wandb()


def open_sinks(recipe: Recipe, folder: Path, first_step: int) -> Sinks:
    """Open what ``recipe.log`` asks for, in the run folder ``folder``, to go on after ``first_step``.

    Only the first of several processes should. ClippyError where a package is missing or a service refuses.
    """
    check_sinks(recipe)
    sinks: list[Sink] = []
    if recipe.log.wandb is not None:  # first, since it may refuse, and leave no used folder behind
        sinks.append(WeightsAndBiases(recipe, recipe.log.wandb, folder))
    if recipe.log.tensorboard:
        sinks.append(TensorBoard(folder / "tensorboard", first_step))
    return Sinks(sinks)


def event_figures(event: StepReport | Validated | SetsEvaluated) -> dict[str, float]:
    """``train/loss`` and so on, ``validation/loss``, ``evaluation/SET.METRIC``; unknown ones are left out."""
    if isinstance(event, StepReport):
        values = {name: value for name, value in dataclasses.asdict(event).items() if name not in _NO_FIGURES}
        values |= {f"terms/{name}": value for name, value in values.pop("terms").items()}
        return {f"train/{name}": float(value) for name, value in values.items() if value is not None}
    if isinstance(event, Validated):
        return {"validation/loss": event.loss}
    return {f"evaluation/{name}": value for name, value in event.figures.items()}


class TensorBoard:
    """An event file, written in the caller's thread, so that a full disk is noticed there and not in another.

    It tells TensorBoard to forget what earlier files of a resumed run say about steps after ``first_step``.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path, first_step: int) -> None:
        self._events, self._summary = _tensorboard("compat.proto.event_pb2"), _tensorboard("compat.proto.summary_pb2")
        path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = _tensorboard("summary.writer.record_writer").RecordWriter(path.open("wb"))
            self._add(step=first_step + 1, file_version="brain.Event:2")
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(step=first_step + 1, session_log=start)
        except OSError as error:
            raise ClippyError(
                f"{path}: cannot be written ({error.strerror or error})",
                "Free some space, or --set log.tensorboard=false.",
            ) from error

    def write(self, step: int, figures: dict[str, float]) -> None:
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._add(step=step, summary=self._summary.Summary(value=values))

    def close(self) -> None:
        self._writer.close()

    def _add(self, **fields: Any) -> None:
        self._writer.write(self._events.Event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()


class WeightsAndBiases:
    """A run of a W&B project. Its id stays in the run folder, so that a resumed run goes on with the same curves.

    W&B drops figures of steps that it has already; those that a resumed run does again are the same.
    """

    name = "Weights & Biases"

    def __init__(self, recipe: Recipe, project: str, folder: Path) -> None:
        known = folder / "wandb_id"
        identity = known.read_text(encoding="utf-8").strip() if known.is_file() else uuid.uuid4().hex[:12]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._run = _wandb().init(
                project=project,
                name=recipe.name,
                id=identity,
                resume="allow",
                dir=str(folder),
                config=recipe.model_dump(mode="json"),
            )
        except Exception as error:  # W&B has errors of its own for no login, no network, no such project, ...
            raise ClippyError(
                f"Weights & Biases could not start: {first_line(error)}",
                "Run wandb login; or set WANDB_MODE=offline; or leave it out: --set log.wandb=null",
            ) from error
        write_whole(known, lambda stream: stream.write(identity.encode()))

    def write(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


def _tensorboard(module: str) -> Any:
    try:
        return importlib.import_module(f"tensorboard.{module}")
    except ImportError as error:
        raise _missing("tensorboard", "log.tensorboard", "false") from error


def _wandb() -> Any:
    try:
        module = importlib.import_module("wandb")
    except ImportError as error:
        raise _missing("wandb", "log.wandb", "null") from error
    if not hasattr(module, "init"):  # a folder of that name, which W&B itself leaves behind, imports as well
        raise _missing("wandb", "log.wandb", "null")
    return module


def _missing(package: str, field: str, off: str) -> ClippyError:
    return ClippyError(
        f"{field} is set, but the package {package} is not installed.",
        f"{install_command(package)}, or leave it out: --set {field}={off}",
    )
