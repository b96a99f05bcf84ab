"""What a term of the loss is: a file in this folder with a class and a function that builds it from a run's setup."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import ALONE, Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.events import OnEvent, ShouldStop, Stop
from clippy_cli.training.loader import Batch, Feed
from clippy_cli.training.step_shapes import StepShape


@dataclass(frozen=True)
class Pairs:
    """What the towers made of a process's part of a batch, in its order; in float32, with gradients.

    Under gradient caching these are leaves: a gradient that reaches them is carried on to the towers.

    Attributes:
        images: (B,D) unit vectors, or (B,K,D) unit patch vectors under lse pooling.
        texts: (B,D) unit vectors.
        scale, bias: of the logits; scalars.
        step: 0-based.
        shape: of this step; a term with a forward pass of its own keeps to ``chunk_size`` images at once.
    """

    images: Tensor
    texts: Tensor
    scale: Tensor
    bias: Tensor
    step: int
    shape: StepShape


class Term(ABC):
    """A part of the loss beside the contrastive one. Only :meth:`loss` has to be written.

    The mean over the processes of what :meth:`loss` returns must be the loss of the whole batch.
    """

    @abstractmethod
    def loss(self, batch: Batch, pairs: Pairs) -> dict[str, Tensor]:
        """Name -> weighted scalar; the same names in every step. All are added to the contrastive loss."""

    def parameters(self) -> Sequence[nn.Parameter]:
        """What learns beside the model, at the peak rate :attr:`learning_rate`; the same in all processes."""
        return ()

    @property
    def learning_rate(self) -> float | None:
        """Peak learning rate of :meth:`parameters`; None takes ``train.lr``."""
        return None

    def after_update(self, step: int) -> None:  # noqa: B027 (most terms do nothing)
        """Called once the optimizer has made 0-based ``step``, in all processes."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold for a resumed run to go on bit-equal; empty for terms without memory."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take over what :meth:`state` gave."""


@dataclass(frozen=True)
class TermSetup:
    """What a term may be built from: the run's model, with the weights that it starts or resumes with, and data."""

    model: Clippy
    recipe: Recipe
    feed: Feed
    total_steps: int
    processes: Processes = ALONE
    emit: OnEvent = lambda event: None
    should_stop: ShouldStop = lambda: Stop.GO_ON
