"""Measure one model on one set: forward passes shared by all tasks, in blocks that any number of processes can divide.

A block is ``batch_size`` consecutive images. It is encoded together whoever encodes it, so that counts do not depend on
how many processes there are, or on where an earlier run was interrupted.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.benchmarks.base import ClassificationSet, ImageSet, RegionSet, SegmentationSet
from clippy_cli.data.benchmarks.captioned import CaptionedSet
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.clustering import fit_centres
from clippy_cli.evaluation.journal import Journal, Records
from clippy_cli.evaluation.measure import (
    Classifier,
    Measure,
    Segmenter,
    measure_clusters,
    measure_groups,
    measure_segmentation,
)
from clippy_cli.evaluation.metrics.retrieval import ranks_before
from clippy_cli.evaluation.processes import Processes
from clippy_cli.evaluation.protocol import Settings
from clippy_cli.evaluation.result import ImageRecord, Task
from clippy_cli.inference.features import Encode, Failed, dense_embeddings, encode_images, image_scores
from clippy_cli.inference.group import DEFAULT_GROUPS, Method
from clippy_cli.model.base import VisionLanguageModel

TASKS: Mapping[str, tuple[Task, ...]] = {
    "segmentation": ("segment", "group", "cluster"),
    "boundaries": ("group",),
    "classification": ("classify",),
    "retrieval": ("retrieve",),
}
DEFAULT_TASKS: Mapping[str, tuple[Task, ...]] = {**TASKS, "segmentation": ("segment", "group")}
RECALLS = (1, 5, 10)
_CLUSTER_IMAGES = 500
_CLUSTER_PATCHES = 200_000

Progress = Callable[[int, int], None]


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
    """

    batch_size: int = 16
    workers: int = 2
    groups: int = DEFAULT_GROUPS
    method: Method = "pca"
    clusters: int | None = None
    limit: int | None = None
    seed: int = 0


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
    on_progress: Progress | None = None,
) -> Measured:
    """Measure ``tasks`` on every image, skipping those that ``journal`` has; all processes return the same.

    The task ``segment`` needs a ``segmenter``. ``on_progress`` is called with (images done by this process, images that
    it has to do), first with none done. ClippyError where the set does not have what a task needs; images that cannot
    be read become records with an ``error``.
    """
    processes = processes or Processes()
    check_tasks(images, tasks)
    if images.info.kind == "retrieval":
        return _measure_retrieval(model, cast(CaptionedSet, images), settings, options, processes, on_progress)
    total = len(images) if options.limit is None else min(options.limit, len(images))
    done, earlier = journal.read() if journal is not None else ({}, 0.0)
    processes.gather(None)  # nobody writes before all have read
    blocks = [range(start, min(start + options.batch_size, total)) for start in range(0, total, options.batch_size)]
    mine = processes.share([block for block in blocks if not all(index in done for index in block)])
    clock = _Clock(model.device)
    read, encode, task_measures, crop = _plan(model, images, tasks, settings, options, segmenter, clock)
    fresh: dict[int, Records] = {}
    count = sum(map(len, mine))
    results = encode_images(
        [index for block in mine for index in block],
        read,
        encode,
        patch_size=model.preprocess.patch_size,
        resolution=settings.resolution,
        batch_size=options.batch_size,
        workers=options.workers,
        crop=crop,
    )
    if on_progress is not None:
        on_progress(0, count)
    begun = noted = time.perf_counter()
    waiting: dict[int, Records] = {}
    for place, result in enumerate(results, start=1):
        if isinstance(result, Failed):
            index = result.key
            waiting[index] = {
                task: ImageRecord(index=index, key=images.key(index), error=result.error.message) for task in tasks
            }
        else:
            index = result.sample.index
            waiting[index] = {
                task: measure(index, result.sample.sample, result.output) for task, measure in task_measures.items()
            }
        if on_progress is not None:
            on_progress(place, count)
        if place % options.batch_size == 0 or place == count:
            now = time.perf_counter()
            if journal is not None:
                journal.append(waiting, now - noted)
            fresh |= waiting
            waiting, noted = {}, now
    seconds = time.perf_counter() - begun
    parts = processes.gather((fresh, seconds, clock.seconds))
    for part, _, _ in parts:
        done |= part
    measured = sum(len(part) for part, _, _ in parts)
    slowest = max(seconds for _, seconds, _ in parts)
    encoder = sum(encoder for _, _, encoder in parts) / max(sum(seconds for _, seconds, _ in parts), 1e-9)
    return Measured(
        {task: [done[index][task] for index in range(total)] for task in tasks},
        slowest + earlier,
        encoder if measured else None,
        measured / slowest if measured else None,
    )


def parse_tasks(text: str) -> tuple[Task, ...]:
    """Read ``segment,group``; ClippyError names what is unknown."""
    known: tuple[Task, ...] = get_args(Task)
    tasks = []
    for part in (part.strip() for part in text.split(",")):
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ClippyError(f"No task is called {part!r}{meant}", f"Choose among {', '.join(known)}.")
        tasks.append(part)
    return tuple(dict.fromkeys(tasks))


def check_tasks(images: ImageSet, tasks: Sequence[Task]) -> None:
    """ClippyError where a task cannot be measured on a set."""
    possible = TASKS[images.info.kind]
    for task in tasks:
        if task not in possible:
            raise ClippyError(
                f"{images.info.name} cannot measure the task {task!r}: {_LACKS[images.info.kind]}",
                f"Its tasks are {', '.join(possible)}.",
            )


_LACKS = {
    "segmentation": "its images have classes for pixels, not for the whole, and no captions",
    "boundaries": "its regions have no names",
    "classification": "its images have one class and no masks or captions",
    "retrieval": "its images have captions only",
}


@dataclass(frozen=True)
class _Indexed:
    """A sample with its place in the set."""

    index: int
    sample: Any

    @property
    def key(self) -> str:
        return str(self.sample.key)

    @property
    def image(self) -> NDArray[np.uint8]:
        return cast("NDArray[np.uint8]", self.sample.image)


class _Clock:
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


def _plan(
    model: VisionLanguageModel,
    images: ImageSet,
    tasks: Sequence[Task],
    settings: Settings,
    options: Options,
    segmenter: Segmenter | None,
    clock: _Clock,
) -> tuple[Callable[[int], _Indexed], Encode, dict[Task, Measure], bool]:
    """How to read, how to encode, what to make of it, and whether images are cropped to squares."""
    if images.info.kind == "classification":
        labelled = cast(ClassificationSet, images)
        classifier = Classifier(model, labelled, settings)
        encode: Encode = partial(image_scores, model, classifier.texts)
        return (
            lambda index: _Indexed(index, labelled.read(index)),
            clock.timed(encode),
            {"classify": classifier.measure},
            True,
        )
    annotated = cast(SegmentationSet | RegionSet, images)
    encode = partial(dense_embeddings, model, window=settings.window, stride=settings.stride)
    chosen: dict[Task, Measure] = {}
    if images.info.kind == "segmentation":
        classified = cast(SegmentationSet, images)
        classes = len(classified.classes)
        if segmenter is not None:
            chosen["segment"] = partial(measure_segmentation, segmenter, classes)
        if "cluster" in tasks:
            centres = _centres(model, classified, encode, settings, options)
            chosen["cluster"] = partial(measure_clusters, centres, classes)
    if "group" in tasks:
        chosen["group"] = partial(measure_groups, options.groups, options.method)
    return lambda index: _Indexed(index, annotated.read(index)), clock.timed(encode), chosen, False


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
        resolution=settings.resolution,
        batch_size=options.batch_size,
        workers=options.workers,
    ):
        if not isinstance(result, Failed):
            patches = torch.nn.functional.normalize(result.output.flatten(0, 1), dim=1).cpu()  # (N,D)
            sampled.append(patches[torch.randperm(len(patches), generator=generator)[:each]])
    if not sampled:
        raise ClippyError(f"No image of {images.info.name} can be read", "Check the data set; --list says where it is.")
    return fit_centres(torch.cat(sampled), options.clusters or len(images.classes), options.seed)


def _measure_retrieval(
    model: VisionLanguageModel,
    images: CaptionedSet,
    settings: Settings,
    options: Options,
    processes: Processes,
    on_progress: Progress | None,
) -> Measured:
    """Score every image with every caption. Ranks need all scores, so an interrupted measurement starts again."""
    total = len(images) if options.limit is None else min(options.limit, len(images))
    captions: dict[int, tuple[str, ...]] = {}
    errors: dict[int, str] = {}
    for index in range(total):
        try:
            captions[index] = images.captions(index)
        except ClippyError as error:
            errors[index] = error.message
    texts = model.embed_texts([text for own in captions.values() for text in own]).float()  # (T,D)
    blocks = [range(start, min(start + options.batch_size, total)) for start in range(0, total, options.batch_size)]
    mine = [index for block in processes.share(blocks) for index in block if index in captions]
    clock = _Clock(model.device)
    rows: dict[int, Tensor] = {}
    if on_progress is not None:
        on_progress(0, len(mine))
    begun = time.perf_counter()
    results = encode_images(
        mine,
        lambda index: _Indexed(index, images.read(index)),
        clock.timed(partial(image_scores, model, texts)),
        patch_size=model.preprocess.patch_size,
        resolution=settings.resolution,
        batch_size=options.batch_size,
        workers=options.workers,
        crop=True,
    )
    for place, result in enumerate(results, start=1):
        if isinstance(result, Failed):
            errors[result.key] = result.error.message
        else:
            rows[result.sample.index] = result.output
        if on_progress is not None:
            on_progress(place, len(mine))
    seconds = time.perf_counter() - begun
    parts = processes.gather((rows, errors, seconds, clock.seconds))
    for part_rows, part_errors, _, _ in parts:
        rows |= part_rows
        errors |= part_errors
    slowest = max(part[2] for part in parts)
    share = sum(part[3] for part in parts) / max(sum(part[2] for part in parts), 1e-9)
    records = _retrieval_records(images, total, captions, rows, errors)
    return Measured({"retrieve": records}, slowest, share if rows else None, len(rows) / slowest if rows else None)


def _retrieval_records(
    images: CaptionedSet,
    total: int,
    captions: Mapping[int, tuple[str, ...]],
    rows: Mapping[int, Tensor],
    errors: Mapping[int, str],
) -> list[ImageRecord]:
    """Ranks among the images that could be read, and their captions alone."""
    counted = sorted(rows)
    columns = torch.tensor([index for index, own in captions.items() for _ in own])  # (T,) image of each caption
    keep = torch.isin(columns, torch.tensor(counted, dtype=columns.dtype))
    owner = torch.searchsorted(torch.tensor(counted, dtype=columns.dtype), columns[keep])
    scores = torch.stack([rows[index] for index in counted])[:, keep] if counted else torch.zeros(0, 0)
    captions_before, images_before = ranks_before(scores, owner)
    found: dict[int, dict[str, float | None]] = {}
    for place, index in enumerate(counted):
        own = images_before[owner == place]
        found[index] = {f"image_to_text_r{k}": float(captions_before[place] < k) for k in RECALLS}
        found[index] |= {f"text_to_image_r{k}": float((own < k).double().mean()) for k in RECALLS}
        found[index]["captions"] = float(len(own))
    return [
        ImageRecord(index=index, key=images.key(index), scores=found.get(index, {}), error=errors.get(index))
        for index in range(total)
    ]
