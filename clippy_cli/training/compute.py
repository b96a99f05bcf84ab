"""What a step costs: model FLOPs of each shape, the device's peak, and memory."""

from __future__ import annotations

import resource
import sys

import torch

from clippy_cli.model.clippy import Clippy
from clippy_cli.model.flops import ForwardFlops, forward_flops, peak_flops, step_flops
from clippy_cli.model.sampling import num_kept
from clippy_cli.recipe_schema import Recipe
from clippy_cli.training.step_shapes import StepShape


class Compute:
    """Work of one image-caption pair by step shape, counted once a shape; nothing for towers whose features are stored.

    Captions count with the whole context, since padding is computed on too.
    """

    def __init__(self, model: Clippy, recipe: Recipe) -> None:
        self._model, self._recipe = model, recipe
        self._known: dict[tuple[int, float], tuple[int, float]] = {}
        self.peak = peak_flops(model.device, recipe.train.precision)

    def of_pair(self, shape: StepShape) -> tuple[int, float]:
        """Patch tokens in the trunk, and model FLOPs forward and backward."""
        key = (shape.resolution, shape.drop_rate)
        if key not in self._known:
            self._known[key] = self._count(shape)
        return self._known[key]

    def _count(self, shape: StepShape) -> tuple[int, float]:
        model, recipe = self._model, self._recipe
        h, w = model.image.grid_size(shape.resolution, shape.resolution)
        kept = num_kept(h * w, shape.drop_rate)
        forward = forward_flops(
            model, shape.resolution, kept if shape.drop_rate else None, model.text.config.context_length
        )
        if recipe.data.cache_features:
            forward = ForwardFlops(0.0, 0.0 if recipe.model.text.freeze != "none" else forward.text)
        image_learns, text_learns = recipe.model.image.freeze == "none", recipe.model.text.freeze == "none"
        return kept, step_flops(forward, 1, image_learns=image_learns, text_learns=text_learns)


def peak_memory_gb(device: torch.device) -> float:
    """Peak since the start in 1e9 bytes: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
