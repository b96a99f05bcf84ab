"""Batches of images and captions, read by worker processes in an order that does not depend on them."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clippy_cli.data.captions import BrokenSampleError, CaptionSource
from clippy_cli.data.scenes import SceneSource
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tables import TableSource
from clippy_cli.data.transforms import TrainTransform
from clippy_cli.errors import ClippyError
from clippy_cli.recipe_schema import DataRecipe, ScenesRecipe, ShardsRecipe, SourceRecipe
from clippy_cli.training.order import PLAIN, Draw, PlainBatches, Steps, sample_generator


@dataclass
class Batch:
    """The usable samples of one step; B may be smaller than the recipe's batch size.

    Attributes:
        indices: B sample numbers.
        captions: of each sample the chosen one, or all of them in a plain batch.
        images: (B,3,R,R) uint8, or None where stored ``features`` (B,P+K,F), already sub-sampled, stand in.
        text_features: (B,F) of the frozen encoder for each sample's first caption here, or None.
        broken: sample number -> what is wrong with it.
    """

    indices: list[int]
    captions: list[tuple[str, ...]]
    images: Tensor | None = None
    features: Tensor | None = None
    text_features: Tensor | None = None
    broken: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """Called by the DataLoader, so that the copy to a CUDA device runs beside the computation."""
        return self if self.images is None else replace(self, images=self.images.pin_memory())


class Feed(Protocol):
    """Where batches come from: images through workers, or stored features."""

    def __len__(self) -> int: ...

    def training(self, batch_size: int, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps ``first`` to ``last``, excluded."""
        ...

    def plain(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Given samples, unaugmented, each with all its captions."""
        ...


def open_source(recipe: SourceRecipe, resolution: int) -> CaptionSource:
    """The source that a recipe describes; ClippyError where it does not exist or holds nothing."""
    if isinstance(recipe, ShardsRecipe):
        return ShardSource(recipe.paths)
    if isinstance(recipe, ScenesRecipe):
        return SceneSource(recipe.count, recipe.seed, resolution)
    return TableSource(recipe.path, recipe.image_column, recipe.caption_column, recipe.root)


class ImageFeed:
    """Images and captions of a source, read by ``workers`` processes (none: the caller's own)."""

    def __init__(
        self, source: CaptionSource, data: DataRecipe, resolution: int, *, seed: int, pin_memory: bool
    ) -> None:
        self.source = source
        self.workers = data.workers
        self.pin_memory = pin_memory
        self._samples = _Samples(source, data, resolution, seed)
        self._seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def training(self, batch_size: int, first: int, last: int) -> Iterator[Batch]:
        return self._read(Steps(len(self.source), batch_size, self._seed, first, last))

    def plain(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        return self._read(PlainBatches(indices, batch_size))

    def _read(self, batches: Iterable[list[Draw]]) -> Iterator[Batch]:
        loader: DataLoader[_Sample | _Broken] = DataLoader(
            self._samples,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            pin_memory=self.pin_memory,
        )
        try:
            yield from loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ClippyError(
                f"A process that reads images died: {str(error).splitlines()[0]}",
                "Often memory ran out: try fewer with --set data.workers=1, then --resume.",
            ) from error


@dataclass(frozen=True)
class _Sample:
    index: int
    image: NDArray[np.uint8]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Broken:
    index: int
    message: str


class _Samples(Dataset[_Sample | _Broken]):
    def __init__(self, source: CaptionSource, data: DataRecipe, resolution: int, seed: int) -> None:
        self._source = source
        self._augment = TrainTransform(resolution, data.crop_scale, data.flip)
        self._plain = TrainTransform(resolution)
        self._seed = seed

    def __getitem__(self, draw: Draw) -> _Sample | _Broken:
        try:
            sample = self._source.read(draw.sample)
        except (BrokenSampleError, ClippyError) as error:
            return _Broken(draw.sample, str(error))
        if draw.epoch == PLAIN:
            return _Sample(draw.sample, self._plain(sample.image, np.random.default_rng(0)), sample.captions)
        rng = sample_generator(self._seed, draw)
        caption = sample.captions[rng.integers(len(sample.captions))]
        return _Sample(draw.sample, self._augment(sample.image, rng), (caption,))


def _collate(samples: list[_Sample | _Broken]) -> Batch:
    good = [sample for sample in samples if isinstance(sample, _Sample)]
    broken = {sample.index: sample.message for sample in samples if isinstance(sample, _Broken)}
    images = None
    if good:
        images = torch.from_numpy(np.stack([sample.image for sample in good]).transpose(0, 3, 1, 2).copy())
    indices, captions = [sample.index for sample in good], [sample.captions for sample in good]
    return Batch(indices, captions, images=images, broken=broken)


def _start_worker(_: int) -> None:
    """One thread a worker; Ctrl-C is the main process's to handle, which then stops the workers with SIGTERM."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
