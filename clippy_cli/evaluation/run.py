"""Measure one model on one set: forward passes shared by all tasks, in blocks that any number of processes can divide.

A block is ``batch_size`` consecutive images. It is encoded together whoever encodes it, so that counts do not depend on
how many processes there are, or on where an earlier run was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.benchmarks.base import ClassificationSet, ImageSet, RegionSet, SegmentationSet
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.clustering import fit_centres
from clippy_cli.evaluation.journal import Journal, Records
from clippy_cli.evaluation.measure import (
    Classifier,
    Measure,
    Segmenter,
    measure_clusters,
    measure_groups,
    measure_regions,
    measure_segmentation,
)
from clippy_cli.evaluation.protocol import Settings
from clippy_cli.evaluation.result import ImageRecord, Task
from clippy_cli.evaluation.tasks import WITH_REGIONS
from clippy_cli.inference.classify import image_scores
from clippy_cli.inference.features import Encode, Failed, encode_images
from clippy_cli.inference.group import DEFAULT_GROUPS, Method
from clippy_cli.inference.views import view_embeddings
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.processes import Processes

_CLUSTER_IMAGES = 500
_CLUSTER_PATCHES = 200_000


@dataclass(frozen=True)
class Progress:
    """Who wants to know how far a measurement is.

    Attributes:
        start: called once with the images counted before, and those that this process has to do.
        advance: called after each of the latter.
    """

    start: Callable[[int, int], object] = lambda before, left: None
    advance: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Options:
    """How a measurement is carried out.

    Attributes:
        batch_size: images in a block, and most of one size in a forward pass.
        workers: threads that decode.
        groups, method: of the task ``group``.
        clusters: of the task ``cluster``; None for as many as the set has classes.
        limit: take the first images only.
        seed: of the clusters' starting points and of which patches they are fitted on.
        regions: folder of region files, for figures of their own beside the task segment.
    """

    batch_size: int = 16
    workers: int = 2
    groups: int = DEFAULT_GROUPS
    method: Method = "pca"
    clusters: int | None = None
    limit: int | None = None
    seed: int = 0
    regions: Path | None = None


@dataclass(frozen=True)
class Measured:
    """What a measurement gave.

    Attributes:
        records: of every image that was tried, failed ones too, by task, in the set's order.
        seconds: wall time of this process's loops, of earlier parts of a continued run too.
        encoder_share: of the wall time of this run, in [0, 1]; None where nothing was left to do.
        images_per_second: of all processes together, in this run; None likewise.
    """

    records: dict[Task, list[ImageRecord]]
    seconds: float
    encoder_share: float | None
    images_per_second: float | None


def measure_set(
    model: VisionLanguageModel,
    images: ImageSet,
    tasks: Sequence[Task],
    settings: Settings,
    options: Options,
    *,
    segmenter: Segmenter | None = None,
    journal: Journal | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure ``tasks`` on every image, skipping those that ``journal`` has; all processes return the same.

    The task ``segment`` needs a ``segmenter``. ClippyError where the set does not have what a task needs; images that
    cannot be read become records with an ``error``.
    """
    processes, progress = processes or Processes(), progress or Progress()
    total = len(images) if options.limit is None else min(options.limit, len(images))
    done, earlier = _counted_before(journal, images, tasks, total, options.clusters)
    processes.gather(None)  # nobody writes before all have read
    blocks = [range(start, min(start + options.batch_size, total)) for start in range(0, total, options.batch_size)]
    mine = processes.share([block for block in blocks if not all(index in done for index in block)])
    clock = EncoderClock(model.device)
    plan = _plan(model, images, tasks, settings, options, segmenter, clock)
    progress.start(len(done), sum(map(len, mine)))
    begun = time.perf_counter()
    fresh: dict[int, Records] = {}
    for block, seconds in _measured_blocks(model, images, mine, plan, settings, options, progress):
        if journal is not None:
            journal.append(block, seconds)
        fresh |= block
    parts = processes.gather((fresh, time.perf_counter() - begun, clock.seconds))
    for part, _, _ in parts:
        done |= part
    records = {task: [done[index][task] for index in range(total)] for task in tasks}
    share, rate = rates([(len(part), seconds, encoder) for part, seconds, encoder in parts])
    return Measured(records, earlier + max(seconds for _, seconds, _ in parts), share, rate)


def rates(parts: Sequence[tuple[int, float, float]]) -> tuple[float | None, float | None]:
    """(images, seconds, seconds in the encoder) of each process -> the encoder's share, and images a second of all."""
    measured = sum(images for images, _, _ in parts)
    if not measured:
        return None, None
    wall = [seconds for _, seconds, _ in parts]
    return sum(encoder for _, _, encoder in parts) / sum(wall), measured / max(wall)


def _counted_before(
    journal: Journal | None, images: ImageSet, tasks: Sequence[Task], total: int, clusters: int | None
) -> tuple[dict[int, Records], float]:
    """What the journal has that fits these images, tasks and classes, and the seconds that it took."""
    if journal is None:
        return {}, 0.0
    done, seconds = journal.read()
    classes = len(getattr(images, "classes", ()))
    widest = max(classes, clusters or 0)

    def fits(index: int, records: Records) -> bool:
        cells = [cell for record in records.values() for cell in record.counts]
        inside = all(row < classes and column < widest for row, column, _ in cells)
        return index < total and records.keys() == set(tasks) and inside

    return {index: records for index, records in done.items() if fits(index, records)}, seconds


def _measured_blocks(
    model: VisionLanguageModel,
    images: ImageSet,
    blocks: Sequence[range],
    plan: _Plan,
    settings: Settings,
    options: Options,
    progress: Progress,
) -> Iterator[tuple[dict[int, Records], float]]:
    """The records of each block, and the seconds that it took."""
    results = encode_images(
        [index for block in blocks for index in block],
        plan.read,
        plan.encode,
        patch_size=model.preprocess.patch_size,
        resolution=settings.resolution if plan.crop else settings.views.short_side(settings.resolution),
        batch_size=options.batch_size,
        workers=options.workers,
        crop=plan.crop,
    )
    for block in blocks:
        begun = time.perf_counter()
        records: dict[int, Records] = {}
        for index, result in zip(block, results, strict=False):
            if isinstance(result, Failed):
                failed = ImageRecord(index=index, key=images.key(index), error=result.error.message)
                records[index] = dict.fromkeys(plan.measures, failed)
            else:
                sample = result.sample.sample
                records[index] = {task: act(index, sample, result.output) for task, act in plan.measures.items()}
            progress.advance()
        yield records, time.perf_counter() - begun


@dataclass(frozen=True)
class Indexed:
    """A sample with its place in the set."""

    index: int
    sample: Any

    @property
    def key(self) -> str:
        return str(self.sample.key)

    @property
    def image(self) -> NDArray[np.uint8]:
        return cast("NDArray[np.uint8]", self.sample.image)


class EncoderClock:
    """Seconds spent in the image encoder; waits for the device to finish, so that they are its own."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.seconds = 0.0

    def timed(self, encode: Encode) -> Encode:
        def run(batch: Sequence[NDArray[np.uint8]]) -> Tensor:
            begun = time.perf_counter()
            output = encode(batch)
            if self._cuda:
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - begun
            return output

        return run


@dataclass(frozen=True)
class _Plan:
    """How to read, how to encode, what to make of it, and whether images are cropped to squares."""

    read: Callable[[int], Indexed]
    encode: Encode
    measures: Mapping[Task, Measure]
    crop: bool


def _plan(
    model: VisionLanguageModel,
    images: ImageSet,
    tasks: Sequence[Task],
    settings: Settings,
    options: Options,
    segmenter: Segmenter | None,
    clock: EncoderClock,
) -> _Plan:
    if images.info.kind == "classification":
        labelled = cast(ClassificationSet, images)
        classifier = Classifier(model, labelled, settings)
        encode: Encode = partial(image_scores, model, classifier.texts)
        measures: dict[Task, Measure] = {"classify": classifier.measure}
        return _Plan(lambda index: Indexed(index, labelled.read(index)), clock.timed(encode), measures, crop=True)
    annotated = cast(SegmentationSet | RegionSet, images)
    encode = partial(view_embeddings, model, views=settings.views)
    chosen: dict[Task, Measure] = {}
    if images.info.kind == "segmentation":
        classified = cast(SegmentationSet, images)
        classes = len(classified.classes)
        if segmenter is not None:
            chosen["segment"] = partial(measure_segmentation, segmenter, classes)
            if WITH_REGIONS in tasks and options.regions is not None:
                folder = options.regions / images.info.name
                folder = folder if folder.is_dir() else options.regions
                chosen[WITH_REGIONS] = partial(measure_regions, segmenter, folder, classes)
        if "cluster" in tasks:
            centres = _centres(model, classified, encode, settings, options)
            chosen["cluster"] = partial(measure_clusters, centres, classes)
    if "group" in tasks:
        chosen["group"] = partial(measure_groups, options.groups, options.method)
    return _Plan(lambda index: Indexed(index, annotated.read(index)), clock.timed(encode), chosen, crop=False)


def _centres(
    model: VisionLanguageModel, images: SegmentationSet, encode: Encode, settings: Settings, options: Options
) -> Tensor:
    """Centres from a sample of the set's patches; the same in every process, since each fits on the same ones."""
    total = len(images) if options.limit is None else min(options.limit, len(images))
    generator = torch.Generator().manual_seed(options.seed)
    chosen = torch.randperm(total, generator=generator)[:_CLUSTER_IMAGES].tolist()
    each = max(1, _CLUSTER_PATCHES // max(1, len(chosen)))
    sampled = []
    for result in encode_images(
        chosen,
        images.read,
        encode,
        patch_size=model.preprocess.patch_size,
        resolution=settings.views.short_side(settings.resolution),
        batch_size=options.batch_size,
        workers=options.workers,
    ):
        if not isinstance(result, Failed):
            patches = torch.nn.functional.normalize(result.output.flatten(0, 1), dim=1).cpu()  # (N,D)
            sampled.append(patches[torch.randperm(len(patches), generator=generator)[:each]])
    if not sampled:
        where = "" if images.info.folder is None else f" below {images.info.folder}"
        raise ClippyError(f"No image of {images.info.name} can be read{where}", "Check its images and masks.")
    return fit_centres(torch.cat(sampled), options.clusters or len(images.classes), options.seed)
