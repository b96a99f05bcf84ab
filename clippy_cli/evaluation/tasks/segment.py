"""Top-down segmentation: patch embeddings x text embeddings -> a class for each pixel, against the annotated one.

Where regions of the photos are given, each region in the class of most of its pixels makes a second result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet, SegmentedImage
from clippy_cli.data.prompts import OnTexts, patch_prompt_embeddings, unheard
from clippy_cli.data.regions import find_regions, read_regions
from clippy_cli.data.text_cache import TextCache
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.segmentation import (
    class_accuracy,
    confusion_matrix,
    dense_counts,
    iou_per_class,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
    sparse_counts,
)
from clippy_cli.evaluation.result import WITH_REGIONS, ClassScore, ImageRecord, ResultTask
from clippy_cli.evaluation.settings import Settings, class_entries, describe_background, segmentation_rule
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import (
    EvaluationTask,
    Illustration,
    Setup,
    TaskFigures,
    number,
    pooled_counts,
    template_record,
)
from clippy_cli.inference.choices import Competition
from clippy_cli.inference.class_map import class_map
from clippy_cli.inference.segment import Segmenter
from clippy_cli.model.base import VisionLanguageModel


def open_segmenter(
    model: VisionLanguageModel,
    images: SegmentationSet,
    settings: Settings,
    *,
    cache: TextCache | None = None,
    on_texts: OnTexts = unheard,
) -> Segmenter:
    """What labels the photos of a set, by the same path as ``clippy segment``; codes are class indices."""
    entries = class_entries(images, settings)
    if max(entries.codes) >= IGNORE:
        raise ClippyError(f"{images.info.name} has more than {IGNORE} classes", "Split it into smaller sets.")
    texts = patch_prompt_embeddings(model, entries.texts, settings.templates, cache=cache, on_texts=on_texts)
    return Segmenter(texts, entries, segmentation_rule(images, settings))


class Segment(EvaluationTask[SegmentationSet, SegmentedImage]):
    """mIoU and accuracies from one confusion matrix over the whole set."""

    task = Task.SEGMENT
    kinds = ("segmentation",)
    reads_texts = True
    needs = "patches"
    headline = "miou"
    followed = ("miou",)
    image_score = "image_miou"
    compared_by = "pixels"
    definitions: ClassVar[Mapping[str, str]] = {
        "miou": "Mean over classes of intersection over union, from one confusion matrix over the whole set; classes "
        "that are neither annotated nor predicted are left out.",
        "pixel_accuracy": "Share of annotated pixels whose class is right.",
        "mean_class_accuracy": "Mean over annotated classes of the share of their pixels that is right.",
    }

    def __init__(self, setup: Setup[SegmentationSet]) -> None:
        super().__init__(setup)
        if setup.grouped is not None and (setup.options.regions is not None or setup.settings.refine is not None):
            raise ClippyError(
                f"Under protocol {setup.settings.protocol} pixels take the class of their group: there is nothing to "
                "refine or to share in regions.",
                "Leave --refine and --regions out.",
            )
        self._segmenter = open_segmenter(
            setup.model, setup.images, setup.settings, cache=setup.cache, on_texts=setup.on_texts
        )

    @property
    def results(self) -> tuple[ResultTask, ...]:
        return (Task.SEGMENT,) if self.setup.options.regions is None else (Task.SEGMENT, WITH_REGIONS)

    def files(self, index: int) -> tuple[Path, ...]:
        folder, images = self.setup.options.regions, self.setup.images
        if folder is None:
            return ()
        try:
            return (find_regions(_folder_of(folder, images), images.key(index)),)
        except ClippyError:  # said when the image is measured
            return ()

    def measure(self, index: int, sample: SegmentedImage, output: Tensor) -> dict[ResultTask, ImageRecord]:
        """Confusion counts of one image, and the mean IoU over the classes in it.

        In the result with regions a photo does not count whose regions are missing, damaged or of another size.
        """
        height, width = sample.mask.shape
        folder, regions, error = self.setup.options.regions, None, None
        if folder is not None:
            try:
                regions = read_regions(find_regions(_folder_of(folder, self.setup.images), sample.key), height, width)
            except ClippyError as raised:
                error = raised.message
        scores = self._scores(sample, output)
        plain = self._codes(sample, scores, height, width)
        records: dict[ResultTask, ImageRecord] = {Task.SEGMENT: self._count(plain, index, sample)}
        if regions is not None:
            codes = self._segmenter.vote(scores, plain.cpu().numpy().astype(np.int16), regions)
            voted = torch.from_numpy(codes).to(plain.device)
            records[WITH_REGIONS] = self._count(voted, index, sample)
        elif error is not None:
            records[WITH_REGIONS] = ImageRecord(index=index, key=sample.key, error=error)
        return records

    def summarize(self, records: Sequence[ImageRecord]) -> TaskFigures:
        names = [entry.name for entry in self.setup.images.classes]
        confusion = dense_counts(pooled_counts(records), len(names))
        metrics = {
            "miou": number(mean_iou(confusion)),
            "pixel_accuracy": number(pixel_accuracy(confusion)),
            "mean_class_accuracy": number(mean_class_accuracy(confusion)),
        }
        return TaskFigures(metrics, pixel_classes(confusion, None, names), sparse_counts(confusion))

    def record(self, result: ResultTask) -> dict[str, Any]:
        images, settings = self.setup.images, self.setup.settings
        record: dict[str, Any] = {"refinement": settings.refine or "none"}
        if settings.refine is not None:
            record["logit_scale"] = settings.logit_scale
        if result == WITH_REGIONS:
            record["regions"] = f"majority class of each region in {self.setup.options.regions}"
        record["templates"] = template_record(settings)
        entries = class_entries(images, settings)
        record["texts"] = len(entries.texts)
        record["competition"] = (
            "synonyms merged by their maximum on the patch grid, softmax over classes and single background words"
            if settings.competition is Competition.ENTRIES
            else "each text by itself, softmax over all texts"
        )
        if settings.best_classes is not None:
            record["competition"] = (
                f"of groups: softmax over the {settings.best_classes} classes that fit a window best, times softmax "
                "over all; each pixel takes its group's"
            )
        record["background"] = describe_background(images, settings)
        if settings.classes:
            record["words of the protocol"] = {name: list(words) for name, words in settings.classes.items()}
        return record

    def illustrate(self, sample: SegmentedImage, output: Tensor) -> Illustration:
        """Class i as code i + 1, at the photo's size; pixels that do not count as 0."""
        plain = self._codes(sample, self._scores(sample, output), *sample.image.shape[:2])
        annotated = np.where(sample.mask == IGNORE, 0, sample.mask.astype(np.int16) + 1).astype(np.int16)
        names = tuple(entry.name for entry in self.setup.images.classes)
        return Illustration(plain.cpu().numpy().astype(np.int16) + np.int16(1), annotated, names)

    def _scores(self, sample: SegmentedImage, output: Tensor) -> Tensor:
        """(E,h,w) scores on the patch grid, or (E,H',W') of the resized image where windows are averaged at pixels.

        Where pixels take the class of their group, (C,H',W') predictions of the classes.
        """
        windows, grouped = self.setup.windows, self.setup.grouped
        if windows is None:
            return self._segmenter.scores(output)
        height, width = self.setup.size(sample.image.shape[0], sample.image.shape[1])
        if grouped is None:
            return windows.scores(output, self._segmenter.scores, height, width)
        patch = self.setup.model.preprocess.patch_size
        return grouped.predictions(output, self._segmenter, self.setup.images.background, height, width, patch)

    def _codes(self, sample: SegmentedImage, scores: Tensor, height: int, width: int) -> Tensor:
        """The class of each of height x width pixels, the photo's or its annotation's."""
        if self.setup.grouped is not None:  # a class that is asked for nowhere predicts nothing
            return class_map(scores, range(len(scores)), height, width)
        return self._segmenter.codes(scores, sample.image, height, width)

    def _count(self, predicted: Tensor, index: int, sample: SegmentedImage) -> ImageRecord:
        target = torch.from_numpy(sample.mask).to(predicted.device)
        confusion = confusion_matrix(predicted, target, len(self.setup.images.classes), IGNORE).cpu()
        scores = {"image_miou": number(mean_iou(confusion))}
        return ImageRecord(index=index, key=sample.key, counts=sparse_counts(confusion), scores=scores)


def pixel_classes(confusion: Tensor, missed: Tensor | None, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """IoU, accuracy and annotated pixels of each class: (C,C) counts, and (C,) pixels without an answer."""
    annotated = confusion.sum(dim=1) if missed is None else confusion.sum(dim=1) + missed
    rows = zip(
        names,
        iou_per_class(confusion, missed).tolist(),
        class_accuracy(confusion, missed).tolist(),
        annotated.tolist(),
        strict=True,
    )
    return tuple(
        ClassScore(name=name, score=number(iou), accuracy=number(accuracy), count=count)
        for name, iou, accuracy, count in rows
    )


def _folder_of(regions: Path, images: SegmentationSet) -> Path:
    """The folder of a set's regions: one of its own below ``regions``, or ``regions`` itself."""
    own = regions / images.info.name
    return own if own.is_dir() else regions


TASK = Segment
