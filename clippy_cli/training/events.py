"""What a training run tells its caller while it goes on; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """The run is set up.

    ``first_step`` is 0, or the step that a resumed run goes on from; ``problems`` are what the sources found.
    """

    data: str
    samples: int
    steps_per_epoch: int
    total_steps: int
    first_step: int
    trainable_parameters: int
    device: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CacheProgress:
    """``done`` of ``total`` images or captions have gone through their frozen tower."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class StepReport:
    """Means since the last report. ``step`` counts finished steps; ``wait_share`` is time spent waiting for data."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    logit_scale: float
    learning_rate: float
    grad_norm: float
    images_per_second: float
    wait_share: float
    seconds_left: float
    broken: int


@dataclass(frozen=True)
class Validated:
    """Mean loss over the validation source after ``step`` steps."""

    step: int
    loss: float


@dataclass(frozen=True)
class CheckpointSaved:
    step: int
    path: Path


Event = Started | CacheProgress | StepReport | Validated | CheckpointSaved
OnEvent = Callable[[Event], None]


class StopRequested(Exception):
    """The caller asked to stop; what was done so far is on disk."""
