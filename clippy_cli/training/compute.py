"""What a step costs: model FLOPs of each shape, the device's peak, and memory."""

from __future__ import annotations

import resource
import sys

import torch

from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import peak_flops
from clippy_cli.model.flops import ForwardFlops, image_flops, planned_text_length, step_flops, text_flops
from clippy_cli.model.sampling import num_kept
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.views import VIEWS


class Compute:
    """Work of one image-caption pair by step shape, counted once a shape; nothing for towers whose features are stored.

    Captions count with their padding, which is computed on too.
    """

    def __init__(self, model: Clippy, recipe: Recipe) -> None:
        self._model, self._recipe = model, recipe
        self._images: dict[tuple[int, float], tuple[int, float]] = {}
        self._texts: dict[int, float] = {}
        self._whole: dict[int, float] = {}
        self.peak = peak_flops(model.device, recipe.train.precision)

    def count_pair(self, shape: StepShape, text_length: int | None = None) -> tuple[int, float]:
        """Patch tokens in the trunk, and model FLOPs forward and backward; None is a caption as plans take it."""
        recipe = self._recipe.model
        kept, image = self._of_image(shape)
        forward = ForwardFlops(image, self._of_text(text_length or planned_text_length(self._model)))
        image_learns, text_learns = recipe.image.freeze == "none", recipe.text.freeze == "none"
        towers = step_flops(forward, 1, image_learns=image_learns, text_learns=text_learns)
        return kept, towers + self._of_terms(shape.resolution)

    def _of_image(self, shape: StepShape) -> tuple[int, float]:
        key = (shape.resolution, shape.drop_rate)
        if key not in self._images:
            h, w = self._model.image.grid_size(shape.resolution, shape.resolution)
            kept = num_kept(h * w, shape.drop_rate)
            stored = self._recipe.data.cache_features
            work = 0.0 if stored else image_flops(self._model, shape.resolution, kept if shape.drop_rate else None)
            self._images[key] = (kept, work)
        return self._images[key]

    def _of_terms(self, resolution: int) -> float:
        """The terms' own passes: one of a frozen trunk for classes; of two crops each, a frozen and a learning one."""
        train, stored = self._recipe.train, self._recipe.data.cache_features
        passes: list[tuple[int, int]] = []  # side in pixels, forward passes
        if train.classes.weight and not stored:
            passes.append((resolution, 1))
        if train.self_distillation.weight:
            passes.append((train.self_distillation.resolution or resolution, VIEWS * (1 + 3)))
        return sum(count * self._of_whole_image(side) for side, count in passes)

    def _of_whole_image(self, side: int) -> float:
        if side not in self._whole:
            self._whole[side] = image_flops(self._model, side)
        return self._whole[side]

    def _of_text(self, length: int) -> float:
        if length not in self._texts:
            stored = self._recipe.data.cache_features and self._recipe.model.text.freeze != "none"
            self._texts[length] = 0.0 if stored else text_flops(self._model, length)
        return self._texts[length]


def peak_memory_gb(device: torch.device) -> float:
    """Peak since the start in 1e9 bytes: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
