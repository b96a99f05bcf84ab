"""Evaluation while a model trains: the named sets of a recipe, by the same evaluator as ``clippy evaluate``."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import ImageSet, Kind
from clippy_cli.data.benchmarks.catalogue import SCENES
from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.result import TaskResult, measured_task
from clippy_cli.evaluation.run import Progress
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.tasks import default_tasks, task_class
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.files import json_text, write_whole
from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import Processes
from clippy_cli.recipe.schema import Recipe

_log = logging.getLogger(__name__)

FOLDER = "evaluations"

ShowProgress = Callable[[str], AbstractContextManager[Progress]]


class PeriodicEvaluation:
    """Measures a model on the recipe's sets, as often as it is called; see :func:`periodic_evaluation`.

    Attributes:
        step: of the last evaluation; None before the first.
        results, figures: of the last evaluation; a result a set.
    """

    def __init__(
        self, recipe: Recipe, sets: Sequence[ImageSet], processes: Processes, folder: Path, show: ShowProgress
    ) -> None:
        self._recipe, self._sets, self._processes = recipe, sets, processes
        self._folder, self._show = folder, show
        self._protocol = load_protocol(recipe.evaluate.protocol)
        self._options = Options(limit=recipe.evaluate.limit, workers=max(1, recipe.data.workers))
        self.step: int | None = None
        self.results: tuple[TaskResult, ...] = ()
        self.figures: dict[str, float] = {}

    def __call__(self, model: Clippy, step: int) -> dict[str, float]:
        """The figures of ``model``, in evaluation mode, after ``step`` steps, such as ``{"voc20.miou": 0.28}``.

        Every process has to call it, and gets the same. Undefined figures are left out. Nothing of the training is
        touched: no gradient, mode or random state. ClippyError where the protocol and a set do not fit together.
        """
        scenes = self._recipe.evaluate.scenes
        generated = [SceneBenchmark(scenes, model.preprocess.resolution)] if scenes else []
        with _uncompiled(self._recipe.train.compile):
            self.results = tuple(self._measure(model, images) for images in (*self._sets, *generated))
        self.figures = {
            f"{result.data.name}.{metric}": value
            for result in self.results
            for metric in task_class(measured_task(result.task)).followed
            if (value := result.metrics.get(metric)) is not None
        }
        self.step = step
        if self._processes.first:
            self._write(self._folder / FOLDER / f"step-{step:08d}.json")
        return self.figures

    def _measure(self, model: Clippy, images: ImageSet) -> TaskResult:
        with self._show(images.info.name) as progress:
            (result,) = evaluate_set(
                model,
                images,
                self._protocol,
                tasks=default_tasks(images.kind)[:1],
                options=self._options,
                processes=self._processes,
                progress=progress,
            ).results
        if result.data.failed:
            count, first = len(result.data.failed), result.data.failed[0]
            _log.warning("%d images of %s could not be used and do not count: %s", count, images.info.name, first)
        return result

    def _write(self, path: Path) -> None:
        """Keep the whole results; a full disk does not end a training run."""
        document = {"command": "train", "step": self.step, "results": [result.model_dump() for result in self.results]}
        text = json_text(document) + "\n"
        try:
            write_whole(path, lambda stream: stream.write(text.encode()))
        except ClippyError as error:
            _log.warning("%s", error.message)


def periodic_evaluation(
    recipe: Recipe,
    processes: Processes,
    folder: Path,
    show: ShowProgress = lambda name: nullcontext(Progress()),
) -> PeriodicEvaluation | None:
    """What measures the sets and scenes of ``recipe.evaluate``, or None where it names none.

    The processes share the work, and the first writes each evaluation's results below ``folder``. ``show`` is entered
    with a set's name while it is measured.

    Raises:
        ClippyError: a set that is not there, two sets of one name, an unknown protocol, a best figure that no set has.
    """
    wanted = recipe.evaluate
    if not (wanted.sets or wanted.scenes):
        return None
    root = None if wanted.data_root is None else Path(wanted.data_root)
    sets = [open_benchmark(name, root) for name in dict.fromkeys(wanted.sets)]
    kinds: list[tuple[str, Kind]] = [(images.info.name, images.kind) for images in sets]
    kinds += [(SCENES, "segmentation")] if wanted.scenes else []
    names = [name for name, _ in kinds]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ClippyError(
            f"Two sets to evaluate are called {', '.join(twice)}, so their figures could not be distinguished.",
            "Rename a file, or leave one out of evaluate.sets; evaluate.scenes is a set as well.",
        )
    _check_best(
        wanted.best,
        [f"{name}.{metric}" for name, kind in kinds for metric in task_class(default_tasks(kind)[0]).followed],
    )
    return PeriodicEvaluation(recipe, sets, processes, folder, show)


def _check_best(best: str | None, measured: Sequence[str]) -> None:
    if best is not None and best not in measured:
        close = difflib.get_close_matches(best, measured, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise ClippyError(
            f"evaluate.best is {best}, which is not measured.{meant}",
            f"Choose among {', '.join(measured)}; or leave it out for the validation loss.",
        )


def _uncompiled(compiled: bool) -> AbstractContextManager[object]:
    """Run compiled blocks as they were before: images of a set come in many shapes, each of which would be compiled."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
