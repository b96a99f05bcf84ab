"""Resolution, dropped tokens and chunk of every step, as pure functions of the recipe and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clippy_cli.recipe.schema import Recipe

_RESOLUTION = 6  # keeps its stream apart from those of training/order.py


@dataclass(frozen=True)
class StepShape:
    """Side of the images in pixels, share of patch tokens dropped, images of one forward pass (None: all)."""

    resolution: int
    drop_rate: float
    chunk_size: int | None


@dataclass(frozen=True)
class StepShapes:
    """What each of ``total_steps`` steps looks like.

    Each step before the final part draws one of ``resolutions``; the final part (``train.final``) has its own drop
    rate and may have its own resolution and chunk.
    """

    recipe: Recipe
    resolutions: tuple[int, ...]
    total_steps: int

    @property
    def first_final(self) -> int:
        """The first step of the final part; ``total_steps`` where there is none."""
        return self.total_steps - round(self.recipe.train.final.share * self.total_steps)

    def at(self, step: int) -> StepShape:
        """The shape of 0-based ``step``."""
        train, resolution = self.recipe.train, self._drawn(step)
        if step < self.first_final:
            return StepShape(resolution, train.drop_rate, train.chunk_size)
        final = train.final
        return StepShape(final.resolution or resolution, final.drop_rate, final.chunk_size or train.chunk_size)

    def all_resolutions(self) -> Sequence[int]:
        """Every side that a step of this run may have, ascending."""
        final = (self.recipe.train.final.resolution,) if self.first_final < self.total_steps else ()
        return sorted({*self.resolutions, *(side for side in final if side is not None)})

    def _drawn(self, step: int) -> int:
        if len(self.resolutions) == 1:
            return self.resolutions[0]
        rng = np.random.default_rng([_RESOLUTION, self.recipe.seed, step])
        return self.resolutions[int(rng.integers(len(self.resolutions)))]
