"""Which samples make up which step, and every random choice, as pure functions of the seed and the step.

Nothing depends on what was drawn before, so a run that resumes at any step, with any number of workers, sees what
the uninterrupted run sees; and each of several processes draws its part of what one process alone would draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.streams import Position, StreamSource
from clippy_cli.model.sampling import draw_keep_indices
from clippy_cli.training.step_shapes import StepShapes

# Keep the streams of one seed apart; 6 is that of training/step_shapes.py.
_ORDER, _SAMPLE, _STEP, _KEEP, _SUBSTITUTE = range(1, 6)
_VIEWS, _MASK = 7, 8


class Draw(NamedTuple):
    """A sample as it looks in ``epoch``, ``side`` pixels wide; epoch -1 is the plain sample: unaugmented, all captions.

    ``after`` is where a stream of shards stands once this sample is used.
    """

    sample: int
    epoch: int
    side: int
    after: Position | None = None


class BatchShare(NamedTuple):
    """The part of each batch of ``batch_size`` images that process ``rank`` of ``size`` works on."""

    batch_size: int
    rank: int = 0
    size: int = 1

    @property
    def rows(self) -> slice:
        """Its rows in the batch of all."""
        count = self.batch_size // self.size
        return slice(self.rank * count, (self.rank + 1) * count)


PLAIN = -1


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of ``count`` samples."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(count)


def sample_generator(seed: int, draw: Draw) -> np.random.Generator:
    """The source of one sample's caption choice, crop and flip, in this order."""
    return np.random.default_rng([_SAMPLE, seed, draw.epoch, draw.sample])


def substitute_generator(seed: int, draw: Draw) -> np.random.Generator:
    """The source of the samples that stand in for a broken one."""
    return np.random.default_rng([_SUBSTITUTE, seed, draw.epoch, draw.sample])


def view_generator(seed: int, draw: Draw) -> np.random.Generator:
    """The source of one sample's two augmented views."""
    return np.random.default_rng([_VIEWS, seed, draw.epoch, draw.sample])


def mask_generator(seed: int, step: int) -> np.random.Generator:
    """The source of the patches that a step masks, in the batch of all processes."""
    return np.random.default_rng([_MASK, seed, step])


def step_seed(seed: int, step: int, rank: int = 0, chunk: int = 0) -> int:
    """Seed of PyTorch's global generator (dropout) for one forward pass."""
    return _torch_seed(_STEP, seed, step, rank, chunk) if rank or chunk else _torch_seed(_STEP, seed, step)


def keep_indices(
    batch: int, num_patches: int, drop_rate: float, *, seed: int, step: int, device: torch.device
) -> Tensor | None:
    """(B,K) patch tokens that a step keeps, drawn on ``device``; None where nothing is dropped."""
    if drop_rate == 0.0:
        return None
    generator = torch.Generator(device=device).manual_seed(_torch_seed(_KEEP, seed, step))
    return draw_keep_indices(batch, num_patches, drop_rate, generator=generator, device=device)


def _torch_seed(*stream: int) -> int:
    return int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Steps:
    """This process's draws from step ``first`` on; whole batches only, what is left of an epoch is not used."""

    def __init__(self, count: int, part: BatchShare, seed: int, first: int, shapes: StepShapes) -> None:
        self.count, self.part, self.seed, self.first, self.shapes = count, part, seed, first, shapes

    def __len__(self) -> int:
        return self.shapes.total_steps - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        per_epoch = self.count // self.part.batch_size
        order, known = np.empty(0, np.int64), -1
        for step in range(self.first, self.shapes.total_steps):
            epoch, place = divmod(step, per_epoch)
            if epoch != known:
                order, known = epoch_order(self.count, self.seed, epoch), epoch
            start, side = place * self.part.batch_size, self.shapes.at(step).resolution
            yield [
                Draw(int(index), epoch, side) for index in order[start : start + self.part.batch_size][self.part.rows]
            ]


class StreamSteps:
    """The same over a stream of shards, from ``position`` on; each process has shards of its own."""

    def __init__(
        self, stream: StreamSource, part: BatchShare, position: Position, first: int, shapes: StepShapes
    ) -> None:
        self.stream, self.part, self.position, self.first, self.shapes = stream, part, position, first, shapes

    def __len__(self) -> int:
        return self.shapes.total_steps - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self.stream.draws(self.part.rank, self.part.size, self.position)
        count = self.part.batch_size // self.part.size
        for step in range(self.first, self.shapes.total_steps):
            side = self.shapes.at(step).resolution
            taken = [next(draws) for _ in range(count)]
            yield [Draw(sample, passes, side, after) for sample, passes, after in taken]


class PlainBatches:
    """Given samples in given order, unaugmented, in batches; the last may be smaller."""

    def __init__(self, indices: NDArray[np.int64], batch_size: int, side: int) -> None:
        self.indices, self.batch_size, self.side = indices, batch_size, side

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [Draw(int(index), PLAIN, self.side) for index in self.indices[start : start + self.batch_size]]
