"""What a training run tells its caller while it goes on; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from clippy_cli.notices import Notice


@dataclass(frozen=True)
class Started:
    """The run is set up.

    ``first_step`` is 0, or the step that a resumed run goes on from; ``notices`` are what the sources found.
    """

    data: str
    samples: int
    steps_per_epoch: int
    total_steps: int
    first_step: int
    trainable_parameters: int
    device: str
    processes: int
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class CacheProgress:
    """``done`` of ``total`` images or captions have gone through their frozen tower."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class CaptionsRead:
    """About ``done`` of ``total`` samples have had their captions read, which a term of the loss needs first."""

    done: int
    total: int


@dataclass(frozen=True)
class OffsetProgress:
    """``done`` of ``total`` images have gone into the mean patch that the model keeps."""

    done: int
    total: int


@dataclass(frozen=True)
class StepReport:
    """Means since the last report, over all processes.

    Attributes:
        step: finished steps.
        image_accuracy, text_accuracy: share of images whose own caption scores best in the batch, and of captions
            whose own image does.
        learning_rate: of ``train.lr``; towers with a peak of their own follow in proportion.
        grad_norm: before clipping.
        tokens_per_second: patch tokens that the image tower kept; None for a trunk without tokens.
        teraflops: the model's own arithmetic, in 1e12 operations a second.
        flop_utilisation: share of the device's peak that these are; None where no peak is
            known (see :mod:`clippy_cli.model.device`).
        wait_share: share of time spent waiting for data, in this process.
        terms: name -> weighted part of ``loss``, where the recipe adds terms to the contrastive one.
        memory_gb: peak of this process since the start: of the GPU where there is one, else of resident memory.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    image_accuracy: float
    text_accuracy: float
    logit_scale: float
    learning_rate: float
    grad_norm: float
    images_per_second: float
    tokens_per_second: float | None
    teraflops: float
    flop_utilisation: float | None
    wait_share: float
    memory_gb: float
    seconds_left: float
    broken: int
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Validated:
    """Mean loss over the validation source after ``step`` steps."""

    step: int
    loss: float


@dataclass(frozen=True)
class SetsEvaluated:
    """Figures of named sets after ``step`` steps, such as ``{"voc20.miou": 0.28}``."""

    step: int
    figures: dict[str, float]


@dataclass(frozen=True)
class CheckpointSaved:
    step: int
    path: Path


@dataclass(frozen=True)
class CheckpointFailed:
    """A checkpoint could not be written; training goes on, and the one before it is still there."""

    step: int
    reason: str


@dataclass(frozen=True)
class BestChanged:
    """The model after ``step`` steps has the best ``figure`` so far; it lies in ``path``."""

    step: int
    figure: str
    value: float
    path: Path


Event = (
    Started
    | CacheProgress
    | CaptionsRead
    | OffsetProgress
    | StepReport
    | Validated
    | SetsEvaluated
    | CheckpointSaved
    | CheckpointFailed
    | BestChanged
)
OnEvent = Callable[[Event], None]


class Stop(IntEnum):
    """Whether the caller wants the run to stop, and why; of several processes the largest counts."""

    GO_ON = 0
    INTERRUPTED = 1
    PREEMPTED = 2


ShouldStop = Callable[[], Stop]


class StopRequested(Exception):
    """The caller asked to stop; what was done so far is on disk."""

    def __init__(self, reason: Stop) -> None:
        super().__init__(reason.name)
        self.reason = reason
