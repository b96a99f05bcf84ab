"""Which samples make up which step, and every random choice, as pure functions of the seed and the step.

Nothing depends on what was drawn before, so a run that resumes at any step, with any number of workers, sees what
the uninterrupted run sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.model.sampling import draw_keep_indices

_ORDER, _SAMPLE, _STEP, _KEEP = range(1, 5)  # keep the streams of one seed apart


class Draw(NamedTuple):
    """A sample as it looks in ``epoch``; epoch -1 is the plain sample: no augmentation, all captions."""

    sample: int
    epoch: int


PLAIN = -1


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of ``count`` samples."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(count)


def sample_generator(seed: int, draw: Draw) -> np.random.Generator:
    """The source of one sample's caption choice, crop and flip, in this order."""
    return np.random.default_rng([_SAMPLE, seed, draw.epoch, draw.sample])


def step_seed(seed: int, step: int) -> int:
    """Seed of PyTorch's global generator (dropout) for one step."""
    return _torch_seed(_STEP, seed, step)


def keep_indices(
    batch: int, num_patches: int, drop_rate: float, *, seed: int, step: int, device: torch.device
) -> Tensor | None:
    """(B,K) patch tokens that a step keeps, drawn on ``device``; None where nothing is dropped."""
    if drop_rate == 0.0:
        return None
    generator = torch.Generator(device=device).manual_seed(_torch_seed(_KEEP, seed, step))
    return draw_keep_indices(batch, num_patches, drop_rate, generator=generator, device=device)


def _torch_seed(stream: int, seed: int, step: int) -> int:
    return int(np.random.SeedSequence([stream, seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Steps:
    """The draws of steps ``first`` to ``last``, excluded; whole batches only, the rest of an epoch is left out."""

    def __init__(self, count: int, batch_size: int, seed: int, first: int, last: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.first, self.last = first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        per_epoch = self.count // self.batch_size
        order, known = np.empty(0, np.int64), -1
        for step in range(self.first, self.last):
            epoch, place = divmod(step, per_epoch)
            if epoch != known:
                order, known = epoch_order(self.count, self.seed, epoch), epoch
            start = place * self.batch_size
            yield [Draw(int(index), epoch) for index in order[start : start + self.batch_size]]


class PlainBatches:
    """Given samples in given order, unaugmented, in batches; the last may be smaller."""

    def __init__(self, indices: NDArray[np.int64], batch_size: int) -> None:
        self.indices, self.batch_size = indices, batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [Draw(int(index), PLAIN) for index in self.indices[start : start + self.batch_size]]
