"""What the training loop asks of its surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clippy_cli.training.events import Event, ShouldStop


@dataclass(frozen=True)
class Hooks:
    """What the loop asks of its surroundings.

    Attributes:
        tell: takes every event.
        should_stop: asked after each step.
        evaluate: measures the model after the given number of steps; called in all processes.
        settle: measures what a model that is written holds beside its weights; called in all processes.
        save_best: writes the model of a new best step and says where; called in the first process, with the step.
    """

    tell: Callable[[Event], None]
    should_stop: ShouldStop
    evaluate: Callable[[int], dict[str, float]]
    settle: Callable[[int], None]
    save_best: Callable[[int], Path]
