"""The model directories of a run, and what is measured for them: the offset of patches over training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clippy_cli import __version__
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.store import save_model
from clippy_cli.processes import Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.events import OffsetProgress, OnEvent, ShouldStop
from clippy_cli.training.loader import Feed
from clippy_cli.training.offset import Offset, measure_offset
from clippy_cli.training.order import BatchShare

OFFSET_IMAGES = 1024
OFFSET_IMAGES_ON_THE_WAY = 256  # where a model is measured or kept before the last step
OFFSET_BATCH = 64


class ModelWriter:
    """Writes the model as it is; all processes measure, the first one writes.

    Attributes:
        offset: as it was measured last; None before.
    """

    def __init__(
        self,
        model: Clippy,
        recipe: Recipe,
        feed: Feed,
        processes: Processes,
        emit: OnEvent,
        should_stop: ShouldStop,
    ) -> None:
        self.offset: Offset | None = None
        self._model, self._recipe, self._feed, self._processes = model, recipe, feed, processes
        self._emit, self._should_stop = emit, should_stop
        self._measured_at: int | None = None  # the step that the offset is of

    def measure(self, step: int) -> None:
        """Measure the offset after ``step`` steps on some images, unless it is known; the model stays in eval mode.

        StopRequested where the caller asks to stop.
        """
        if self._measured_at != step:
            self._measure(step, OFFSET_IMAGES_ON_THE_WAY)

    def write_final(self, step: int, folder: Path) -> None:
        """Measure the offset on more images, and write the model after the last step."""
        self._measure(step, OFFSET_IMAGES)
        self._processes.in_first(lambda: self.write(step, folder))

    def write(self, step: int, folder: Path) -> None:
        """Write the model after ``step`` steps; ClippyError where the disk is full."""
        provenance = _provenance(self._recipe, self.offset, step, len(self._feed))
        self._model.config = self._model.config.model_copy(update={"training": provenance})
        save_model(self._model, folder)

    def _measure(self, step: int, images: int) -> None:
        self._model.eval()
        processes = self._processes
        mine = self._feed.spread(images, BatchShare(self._recipe.train.batch_size, processes.rank, processes.size))
        with torch.compiler.set_stance("force_eager"):  # shapes that training never has again
            self.offset = measure_offset(
                self._model,
                self._feed.plain(mine, OFFSET_BATCH),
                processes,
                should_stop=self._should_stop,
                on_images=lambda done: self._emit(OffsetProgress(done, len(mine))),
            )
        self._model.patch_mean.copy_(self.offset.patch_mean)
        self._measured_at = step


def _provenance(recipe: Recipe, offset: Offset | None, step: int, samples: int) -> dict[str, Any]:
    return {
        "clippy": __version__,
        "recipe": recipe.name,
        "architecture": Path(recipe.model.architecture).stem,
        "image_init": Path(recipe.model.image.init).name,
        "text_init": Path(recipe.model.text.init).name,
        "data": recipe.data.source.kind,
        "samples": samples,
        "steps": step,
        "batch_size": recipe.train.batch_size,
        "seed": recipe.seed,
        **({} if offset is None else {"pooled_patch_cosine": round(offset.pooled_patch_cosine, 4)}),
    }
