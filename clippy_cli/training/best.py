"""Which step was the best so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clippy_cli.recipe.schema import Recipe

VALIDATION_LOSS = "validation.loss"


class Best:
    """The step with the best value of one figure: the highest evaluated one, or the lowest validation loss."""

    def __init__(self, recipe: Recipe) -> None:
        self.figure = recipe.evaluate.best or (VALIDATION_LOSS if recipe.data.validation is not None else None)
        self.step: int | None = None
        self.value: float | None = None

    def update_if_better(self, step: int, figures: Mapping[str, float]) -> bool:
        """Whether ``figures`` at ``step`` are better than all before; an equal value is not."""
        value = figures.get(self.figure) if self.figure is not None else None
        if value is None or value != value:  # not measured, or no number
            return False
        sign = -1.0 if self.figure == VALIDATION_LOSS else 1.0
        if self.value is not None and sign * value <= sign * self.value:
            return False
        self.step, self.value = step, value
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"figure": self.figure, "step": self.step, "value": self.value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, unless the recipe judges by another figure now."""
        if state.get("figure") == self.figure:
            self.step, self.value = state.get("step"), state.get("value")
