"""What every task says about itself and does: prepare once, measure image by image, summarize the records.

A task is prepared for one model and one set: its constructor does what is done once, such as the text side. All tasks
of a set share one forward pass per image, so the tasks of one kind of set need the same of the model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.benchmarks.base import AnnotatedSet, Kind
from clippy_cli.data.benchmarks.framed import Frame
from clippy_cli.data.images import LONGEST_EXACT, dense_size, exact_size, resize_bilinear, resize_image
from clippy_cli.data.prompts import OnTexts, unheard
from clippy_cli.data.text_cache import TextCache
from clippy_cli.evaluation.result import ClassScore, ImageRecord, ResultTask
from clippy_cli.evaluation.settings import Settings, check_whole_numbers
from clippy_cli.evaluation.tasks import Task
from clippy_cli.inference.choices import DEFAULT_GROUPS, Filter, GroupMethod, Sizes, WindowAverage
from clippy_cli.inference.features import Encode
from clippy_cli.inference.grouped import GroupedWindows
from clippy_cli.inference.views import view_embeddings
from clippy_cli.inference.windows import PixelWindows
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.processes import Processes

SetT = TypeVar("SetT", bound=AnnotatedSet)
SampleT = TypeVar("SampleT")

Need = Literal["patches", "scores"]
ComparedBy = Literal["pixels", "clusters", "hits", "scores"]


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
        regions: folder of region files; the task ``segment`` then gives a second result, each region in one class.
    """

    batch_size: int = 16
    workers: int = 2
    groups: int = DEFAULT_GROUPS
    method: GroupMethod = GroupMethod.PCA
    clusters: int | None = None
    limit: int | None = None
    seed: int = 0
    regions: Path | None = None

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "workers": 0, "groups": 1, "clusters": 1, "limit": 1, "seed": 0}
        check_whole_numbers(self, least)


@dataclass(frozen=True)
class Setup(Generic[SetT]):
    """What a task is prepared with: ``cache`` and ``on_texts`` are those of ``data/prompts.py``."""

    model: VisionLanguageModel
    images: SetT
    settings: Settings
    options: Options
    cache: TextCache | None = None
    on_texts: OnTexts = unheard

    @property
    def total(self) -> int:
        """How many images are measured: all, or the first ``options.limit``."""
        limit = self.options.limit
        return len(self.images) if limit is None else min(limit, len(self.images))

    @property
    def windows(self) -> PixelWindows | None:
        """Windows that are averaged at pixels; None where there are none, or where they are averaged on the grid."""
        settings = self.settings
        if settings.window is None or settings.window_average is WindowAverage.PATCHES:
            return None
        return PixelWindows(settings.window, settings.stride or settings.window)

    @property
    def grouped(self) -> GroupedWindows | None:
        """Windows whose pixels take the class of their group; None where the protocol has no such rule."""
        settings = self.settings
        if self.windows is None or settings.best_classes is None:
            return None
        return GroupedWindows(self.windows, settings.best_classes, settings.threshold)

    @property
    def encode_patches(self) -> Encode:
        """B images of one size -> (B,h,w,D) patch embeddings by the views of the settings, or (B,n,h,w,D) of n windows.

        The latter where windows are averaged at pixels (see :attr:`windows`).
        """
        if self.grouped is not None:
            return partial(self.grouped.encode, self.model)
        if self.windows is not None:
            return partial(self.windows.encode, self.model)
        return partial(view_embeddings, self.model, views=self.settings.views)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this size is resized to where patches are wanted."""
        settings = self.settings
        if settings.sizes is Sizes.EXACT:
            return exact_size(height, width, settings.resolution)
        short_side = settings.views.short_side(settings.resolution)
        return dense_size(height, width, short_side, self.model.preprocess.patch_size)

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H,W,3) uint8 -> (H',W',3) uint8, what the model sees where patches are wanted."""
        height, width = self.size(image.shape[0], image.shape[1])
        bilinear = self.settings.resize is Filter.BILINEAR
        return resize_bilinear(image, height, width) if bilinear else resize_image(image, height, width)


@dataclass(frozen=True)
class TaskFigures:
    """The figures of one task on one set: see the fields of the same names of :class:`TaskResult`."""

    metrics: dict[str, float | None]
    classes: tuple[ClassScore, ...] = ()
    confusion: tuple[tuple[int, int, int], ...] = ()

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without annotation."""
        return tuple(entry.name for entry in self.classes if entry.count == 0)


@dataclass(frozen=True)
class Illustration:
    """One image for the report: (H,W) int16 codes, 0 for none; ``names[i]`` is that of code i + 1, if there are any."""

    predicted: NDArray[np.int16]
    annotated: NDArray[np.int16]
    names: tuple[str, ...] = ()


class EvaluationTask(ABC, Generic[SetT, SampleT]):
    """One task, prepared for one model and one set.

    Attributes:
        task: its name.
        kinds: of the sets that it fits.
        by_default: whether those sets are measured on it where no task is named.
        reads_texts: whether the model needs a text tower.
        needs: what the model makes of an image: (h,w,D) patch embeddings, or (K,) scores of ``texts``, which then has
            the K text embeddings (K,D).
        headline: the metric that tables show first.
        definitions: a sentence for every metric that it can give.
        followed: the metrics that training follows, on sets that are for this task.
        image_score: the score of a record by which the report picks its examples; None for no examples.
        compared_by: what ``clippy compare`` compares two results by: mIoU of pixel counts, the same after clusters
            took their classes, hits of the first answer, or the headline's score of each image.
        resumable: whether records of single images may come from an earlier run.
    """

    task: ClassVar[Task]
    kinds: ClassVar[tuple[Kind, ...]]
    by_default: ClassVar[bool] = True
    reads_texts: ClassVar[bool]
    needs: ClassVar[Need]
    headline: ClassVar[str]
    definitions: ClassVar[Mapping[str, str]]
    followed: ClassVar[tuple[str, ...]] = ()
    image_score: ClassVar[str | None] = None
    compared_by: ClassVar[ComparedBy] = "scores"
    resumable: ClassVar[bool] = True
    texts: Tensor

    def __init__(self, setup: Setup[SetT]) -> None:
        self.setup = setup

    @property
    def results(self) -> tuple[ResultTask, ...]:
        """What its results are called, the task's own name first; most tasks have one."""
        return (self.task,)

    @abstractmethod
    def measure(self, index: int, sample: SampleT, output: Tensor) -> dict[ResultTask, ImageRecord]:
        """Image ``index`` of the set and what the model made of it -> what it adds, to each of ``results``."""

    def files(self, index: int) -> tuple[Path, ...]:
        """What is read for image ``index`` beside the set's own files; none, as here, for most tasks."""
        return ()

    def complete(self, records: list[ImageRecord], processes: Processes) -> list[ImageRecord]:
        """The records of all images, in the set's order, with what only all of them together tell.

        Every process calls it with the same records.
        """
        return records

    @abstractmethod
    def summarize(self, records: Sequence[ImageRecord]) -> TaskFigures:
        """The figures of the images that count: those without an error."""

    @abstractmethod
    def record(self, result: ResultTask) -> dict[str, Any]:
        """What was really used, as plain values, beyond what :func:`common_record` says of all tasks."""

    def illustrate(self, sample: SampleT, output: Tensor) -> Illustration | None:
        """One image for the report; None, as here, for a task without pictures."""
        return None


def common_record(task: EvaluationTask[Any, Any]) -> dict[str, Any]:
    """What was really used of the settings that all tasks share."""
    settings = task.setup.settings
    record: dict[str, Any] = {
        "name": settings.protocol_name,
        "resolution": settings.resolution,
        "resize": "short side, bicubic, antialiased",
        "positions": settings.positions or "the model's own",
    }
    if settings.frame is not Frame.WHOLE:
        record["frame"] = "center crop, the whole mask squashed to it"
    if task.needs == "scores":
        record["resize"] += ", center crop"
        if settings.pool_prefix is not None:
            record["pooling"] = "patches and class token" if settings.pool_prefix else "patches"
        return record
    if settings.resize is Filter.BILINEAR:
        record["resize"] = "short side, bilinear, not antialiased"
    if settings.sizes is Sizes.EXACT:
        record["resize"] += f", sides not rounded to the patch, {LONGEST_EXACT} at most"
    where = "at pixels, after upsampling each" if task.setup.windows else "on the patch grid"
    window = f"{settings.window} at stride {settings.stride}, averaged {where}"
    record["window"] = "whole image" if settings.window is None else window
    record["patches"] = settings.patches or "as the model gives them"
    record["scales"], record["flip"] = list(settings.scales), settings.flip
    record["refinement"] = "none"
    return record


def number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def mean_score(records: Sequence[ImageRecord], name: str) -> float | None:
    """The mean over the images that have this figure; exact in any order."""
    values = [value for record in records if (value := record.scores.get(name)) is not None]
    return math.fsum(values) / len(values) if values else None


def pooled_counts(records: Sequence[ImageRecord]) -> list[tuple[int, int, int]]:
    """The counts of all images, one after the other."""
    return [cell for record in records for cell in record.counts]


def template_record(settings: Settings) -> str | list[str]:
    """The prompt templates as results name them."""
    names = settings.template_names
    return names[0] if len(names) == 1 else list(names)
