"""Batches of images and captions, read by worker processes in an order that does not depend on them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clippy_cli.data.captions import BrokenSampleError, CaptionSource
from clippy_cli.data.streams import Position, StreamSource
from clippy_cli.data.transforms import TrainTransform
from clippy_cli.errors import ClippyError, first_line
from clippy_cli.processes import Processes
from clippy_cli.recipe.data import DataRecipe
from clippy_cli.recipe.terms import SelfDistillationRecipe
from clippy_cli.training.events import ShouldStop, Stop, StopRequested
from clippy_cli.training.order import (
    PLAIN,
    BatchShare,
    Draw,
    PlainBatches,
    Steps,
    StreamSteps,
    sample_generator,
    substitute_generator,
    view_generator,
)
from clippy_cli.training.step_shapes import StepShapes
from clippy_cli.training.views import VIEWS, ViewTransform

CAPTIONS_AT_ONCE = 4096
SUBSTITUTES = 100  # so many samples in a row that cannot be read mean that the data is wrong

Tokenize = Callable[[Sequence[str]], Tensor]


@dataclass
class Batch:
    """The samples of one step, or of a plain batch.

    In a training batch another sample stands in for each broken one, so that B is always what the recipe says; a
    plain batch leaves broken samples out.

    Attributes:
        indices: B sample numbers.
        captions: of each sample the chosen one, or all of them in a plain batch.
        images: (B,3,R,R) uint8, or None where stored ``features`` (B,P+K,F), already sub-sampled, stand in.
        views: (B,2,3,S,S) uint8, two augmented crops of each training image, where a loss term compares them.
        token_ids: (B,L) of each sample's first caption here, or None where ``text_features`` (B,F) stand in.
        broken: sample number -> what is wrong with it.
        after: where a stream of shards stands once this batch is used.
        unreadable: why no further batch can be made.
    """

    indices: list[int]
    captions: list[tuple[str, ...]]
    images: Tensor | None = None
    views: Tensor | None = None
    features: Tensor | None = None
    token_ids: Tensor | None = None
    text_features: Tensor | None = None
    broken: dict[int, str] = field(default_factory=dict)
    after: Position | None = None
    unreadable: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """Called by the DataLoader, so that the copy to a CUDA device runs beside the computation."""
        held = {name: getattr(self, name) for name in ("images", "views", "token_ids")}
        pinned = {name: value.pin_memory() for name, value in held.items() if value is not None}
        return replace(self, **pinned)


class Feed(Protocol):
    """Where batches come from: images through workers, or stored features."""

    def __len__(self) -> int: ...

    def training(self, part: BatchShare, first: int, shapes: StepShapes, position: Position) -> Iterator[Batch]:
        """This process's part of the batches from step ``first`` to the last; ``position`` is for streams."""
        ...

    def plain(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Given samples, unaugmented, each with all its captions."""
        ...

    def spread(self, count: int, part: BatchShare) -> NDArray[np.int64]:
        """This process's part of ``count`` samples or fewer for statistics: spread evenly, or first of a stream."""
        ...

    def captions(
        self, processes: Processes, should_stop: ShouldStop, on_samples: Callable[[int], None]
    ) -> Sequence[tuple[str, ...]]:
        """All captions of each sample, none of one whose captions cannot be read; the same in all processes.

        ``on_samples`` gets how many samples this process has read. StopRequested in all processes where the caller of
        one asks to stop.
        """
        ...


def spread_evenly(count: int, total: int, part: BatchShare) -> NDArray[np.int64]:
    """This process's part of ``count`` of ``total`` sample numbers at even distances."""
    count = min(count, total)
    return (np.arange(count) * total // count)[part.rank :: part.size]


class ImageFeed:
    """Images and captions of a source, read by ``workers`` processes (none: the caller's own).

    ``resolution`` is the side of plain samples; training samples have that of their step. With ``views`` each training
    sample also has two augmented crops, of the side that ``views`` names or that of the step.
    """

    def __init__(
        self,
        source: CaptionSource | StreamSource,
        data: DataRecipe,
        resolution: int,
        tokenize: Tokenize,
        *,
        seed: int,
        pin_memory: bool,
        views: SelfDistillationRecipe | None = None,
    ) -> None:
        self.source = source
        self.workers, self.prefetch = data.workers, data.prefetch
        self.pin_memory = pin_memory
        self._samples = _Samples(source, data, tokenize, seed, views)
        self._seed, self._resolution = seed, resolution

    def __len__(self) -> int:
        return len(self.source)

    def training(self, part: BatchShare, first: int, shapes: StepShapes, position: Position) -> Iterator[Batch]:
        if isinstance(self.source, StreamSource):
            return self._read(StreamSteps(self.source, part, position, first, shapes))
        return self._read(Steps(len(self.source), part, self._seed, first, shapes))

    def plain(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        return self._read(PlainBatches(indices, batch_size, self._resolution))

    def spread(self, count: int, part: BatchShare) -> NDArray[np.int64]:
        if isinstance(self.source, StreamSource):
            return np.array(self.source.first(count // part.size, part.rank, part.size), np.int64)
        return spread_evenly(count, len(self), part)

    def captions(
        self, processes: Processes, should_stop: ShouldStop, on_samples: Callable[[int], None]
    ) -> Sequence[tuple[str, ...]]:
        if isinstance(self.source, StreamSource):
            raise ClippyError(
                "The captions of shards behind URLs are not known before they are fetched.",
                "Fetch the shards, and name the local files in data.source.paths.",
            )
        mine: list[tuple[str, ...]] = []
        stop = Stop.GO_ON
        for index in range(processes.rank, len(self.source), processes.size):
            if len(mine) % CAPTIONS_AT_ONCE == 0:
                on_samples(len(mine))
                if stop := Stop(should_stop()):
                    break
            mine.append(_captions_of(self.source, index))
        parts = processes.gather((mine, stop))
        if stop := max(part[1] for part in parts):
            raise StopRequested(stop)
        every: list[tuple[str, ...]] = [()] * len(self.source)
        for rank, (read, _) in enumerate(parts):
            every[rank :: processes.size] = read
        return every

    def _read(self, batches: Iterable[list[Draw]]) -> Iterator[Batch]:
        loader: DataLoader[Batch] = DataLoader(
            self._samples,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # the dataset makes whole batches
            worker_init_fn=_start_worker,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch if self.workers else None,
        )
        try:
            with _opencv_without_threads():
                batches_read = iter(loader)
            for batch in batches_read:
                if batch.unreadable is not None:
                    raise ClippyError(
                        batch.unreadable, "Look at the data with clippy data check; then go on: --resume."
                    )
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two while a batch is handed over
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise ClippyError(
                f"A process that reads images died: {first_line(error)}",
                "Often memory ran out: try fewer with --set data.workers=1, then --resume.",
            ) from error


def _captions_of(source: CaptionSource, index: int) -> tuple[str, ...]:
    try:
        return source.captions(index)
    except (BrokenSampleError, ClippyError):
        return ()


@dataclass(frozen=True)
class _Sample:
    index: int
    image: NDArray[np.uint8]
    captions: tuple[str, ...]
    views: NDArray[np.uint8] | None = None  # (2,S,S,3)


class _Samples(Dataset[Batch]):
    """Whole batches of draws -> :class:`Batch`; run in the workers."""

    def __init__(
        self,
        source: CaptionSource | StreamSource,
        data: DataRecipe,
        tokenize: Tokenize,
        seed: int,
        views: SelfDistillationRecipe | None,
    ) -> None:
        self._source = source
        self._views = None if views is None else ViewTransform(views.crop_scale, views.color_jitter)
        self._view_side = None if views is None else views.resolution
        self._augment = TrainTransform(data.crop_scale, data.flip)
        self._plain = TrainTransform()
        self._tokenize = tokenize
        self._seed = seed

    def __getitems__(self, draws: list[Draw]) -> Batch:
        broken: dict[int, str] = {}
        samples = []
        for draw in draws:
            sample = self._read(draw, broken)
            if sample is None and draw.epoch != PLAIN:
                sample = self._substitute(draw, broken)
                if sample is None:
                    why = f"{SUBSTITUTES} samples in a row cannot be read. The last: {list(broken.values())[-1]}"
                    return Batch([], [], broken=broken, unreadable=why)
            if sample is not None:
                samples.append(sample)
        batch = Batch([s.index for s in samples], [s.captions for s in samples], broken=broken, after=draws[-1].after)
        if samples:
            batch.images = _planes([sample.image for sample in samples])
            views = [view for sample in samples if sample.views is not None for view in sample.views]
            if views:
                batch.views = torch.stack(torch.split(_planes(views), VIEWS))  # (B*2,3,S,S) -> (B,2,3,S,S)
            batch.token_ids = self._tokenize([sample.captions[0] for sample in samples])
        return batch

    def _read(self, draw: Draw, broken: dict[int, str]) -> _Sample | None:
        try:
            sample = self._source.read(draw.sample)
            if draw.epoch == PLAIN:
                plain = self._plain(sample.picture, np.random.default_rng(0), draw.side)
                return _Sample(draw.sample, plain, sample.captions)
            rng = sample_generator(self._seed, draw)
            caption = sample.captions[rng.integers(len(sample.captions))]
            views = None
            if self._views is not None:
                side = self._view_side or draw.side
                views = self._views(sample.picture, view_generator(self._seed, draw), side)
            return _Sample(draw.sample, self._augment(sample.picture, rng, draw.side), (caption,), views)
        except BrokenSampleError as error:
            broken[draw.sample] = str(error)
        except ClippyError as error:
            broken[draw.sample] = error.message
        return None

    def _substitute(self, draw: Draw, broken: dict[int, str]) -> _Sample | None:
        """Another sample in the place of a broken one, so that every process keeps its share of the batch."""
        rng = substitute_generator(self._seed, draw)
        for _ in range(SUBSTITUTES):
            if isinstance(self._source, StreamSource):
                other = self._source.substitute(draw.sample, rng)
            else:
                other = int(rng.integers(len(self._source)))
            sample = self._read(draw._replace(sample=other), broken)
            if sample is not None:
                return sample
        return None


def _planes(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """M images (S,S,3) -> (M,3,S,S)."""
    side = images[0].shape[0]
    planes = np.empty((len(images), 3, side, side), np.uint8)
    for image, of_image in zip(images, planes, strict=True):
        cv2.split(image, list(of_image))
    return torch.from_numpy(planes)


def _as_it_is(batch: Batch) -> Batch:
    return batch


@contextmanager
def _opencv_without_threads() -> Iterator[None]:
    """Around a fork: OpenCV's pool of threads does not exist in the child, which would wait for it for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _start_worker(_: int) -> None:
    """One thread a worker; signals are the main process's to handle, which then stops the workers with SIGTERM.

    torchrun and SLURM announce the end to a whole process group, and the workers are still needed for the last step.
    """
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    """Leave on a SIGTERM of the main process, and of no other."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
