"""From the records of single images to the figures of a set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clippy_cli.evaluation.measure import number
from clippy_cli.evaluation.metrics.grouping import hungarian_confusion
from clippy_cli.evaluation.metrics.segmentation import (
    class_accuracy,
    dense_counts,
    iou_per_class,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
    sparse_counts,
)
from clippy_cli.evaluation.result import ClassScore, ImageRecord, Task
from clippy_cli.evaluation.tasks import WITH_REGIONS

DEFINITIONS = {
    "miou": "Mean over classes of intersection over union, from one confusion matrix over the whole set; classes that "
    "are neither annotated nor predicted are left out.",
    "pixel_accuracy": "Share of annotated pixels whose class is right.",
    "mean_class_accuracy": "Mean over annotated classes of the share of their pixels that is right.",
    "jaccard": "Per image, groups matched one to one with annotated segments (Hungarian, most summed IoU); mean IoU "
    "over segments, unmatched ones 0; then the mean over images.",
    "jaccard_best": "Per image, each annotated segment's best IoU with any group, a group may serve twice (DINO); mean "
    "over segments, then over images.",
    "covering": "Segmentation covering (Arbelaez et al. 2011): mean over annotators, then over images.",
    "probabilistic_rand_index": "Share of pixel pairs that groups and an annotator both join or both part; mean over "
    "annotators, then over images.",
    "variation_of_information": "In bits, lower is better; mean over annotators, then over images.",
    "hungarian_miou": "One clustering of the whole set, clusters matched one to one with classes on pixel counts "
    "(STEGO, PiCIE); mean IoU over classes.",
    "hungarian_pixel_accuracy": "Share of annotated pixels that are right under the same matching.",
    "top1": "Share of images whose class scores highest; ties count against the model.",
    "top5": "Share of images whose class is among the five highest; ties count against the model.",
    "mean_per_class_accuracy": "Mean over classes with images of their top-1 accuracy.",
    "image_to_text": "Share of images one of whose captions is among their {k} best; ties count against the model.",
    "text_to_image": "Share of captions whose image is among their {k} best; ties count against the model.",
}


@dataclass(frozen=True)
class Summary:
    """The figures of one task: see the fields of the same names of :class:`TaskResult`."""

    headline: str
    metrics: dict[str, float | None]
    classes: tuple[ClassScore, ...] = ()
    confusion: tuple[tuple[int, int, int], ...] = ()

    @property
    def definitions(self) -> dict[str, str]:
        """A sentence for each metric."""
        return {name: _definition(name) for name in self.metrics}

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without annotation."""
        return tuple(entry.name for entry in self.classes if entry.count == 0)


def summarise(task: Task, records: Sequence[ImageRecord], names: Sequence[str], clusters: int | None = None) -> Summary:
    """Figures of the images that count, those with an error left out; ``names`` are the set's classes, if any."""
    counted = [record for record in records if record.error is None]
    if task in ("segment", WITH_REGIONS):
        return _segment(dense_counts(_pooled(counted), len(names)), names)
    if task == "cluster":
        return _cluster(dense_counts(_pooled(counted), len(names), clusters or len(names)), names)
    if task == "classify":
        return _classify(counted, names)
    if task == "retrieve":
        return _retrieve(counted)
    figures = list(dict.fromkeys(name for record in counted for name in record.scores)) or ["jaccard", "jaccard_best"]
    return Summary("jaccard", {name: _mean(counted, name) for name in figures})


def _segment(confusion: Tensor, names: Sequence[str]) -> Summary:
    metrics = {
        "miou": number(mean_iou(confusion)),
        "pixel_accuracy": number(pixel_accuracy(confusion)),
        "mean_class_accuracy": number(mean_class_accuracy(confusion)),
    }
    return Summary("miou", metrics, _pixel_classes(confusion, None, names), sparse_counts(confusion))


def _cluster(counts: Tensor, names: Sequence[str]) -> Summary:
    confusion, missed = hungarian_confusion(counts.T)
    metrics = {
        "hungarian_miou": number(mean_iou(confusion, missed)),
        "hungarian_pixel_accuracy": number(pixel_accuracy(confusion, missed)),
    }
    return Summary("hungarian_miou", metrics, _pixel_classes(confusion, missed, names), sparse_counts(confusion))


def _pixel_classes(confusion: Tensor, missed: Tensor | None, names: Sequence[str]) -> tuple[ClassScore, ...]:
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


def _classify(records: Sequence[ImageRecord], names: Sequence[str]) -> Summary:
    hits, counts = torch.zeros(len(names), dtype=torch.float64), torch.zeros(len(names), dtype=torch.int64)
    for record in records:
        ((target, _, images),) = record.counts
        hits[target] += record.scores["top1"] or 0.0
        counts[target] += images
    shares = (hits / counts).tolist()
    top = [name for name in ("top1", "top5") if records and name in records[0].scores] or ["top1"]
    metrics: dict[str, float | None] = {name: _mean(records, name) for name in top}
    metrics["mean_per_class_accuracy"] = number(float((hits / counts).nanmean()))
    classes = tuple(
        ClassScore(name=name, score=number(share), count=count)
        for name, share, count in zip(names, shares, counts.tolist(), strict=True)
    )
    cells: dict[tuple[int, int], int] = {}
    for target, predicted, images in _pooled(records):
        cells[target, predicted] = cells.get((target, predicted), 0) + images
    return Summary("top1", metrics, classes, tuple((*cell, count) for cell, count in sorted(cells.items())))


def _retrieve(records: Sequence[ImageRecord]) -> Summary:
    """Images weigh alike from image to text, captions alike from text to image."""
    names = [name for name in (records[0].scores if records else {}) if name != "captions"]
    captions = sum(record.scores["captions"] or 0.0 for record in records)
    metrics: dict[str, float | None] = {}
    for name in names or ["image_to_text_r1"]:
        if name.startswith("image_to_text"):
            metrics[name] = _mean(records, name)
        else:
            found = sum((record.scores[name] or 0.0) * (record.scores["captions"] or 0.0) for record in records)
            metrics[name] = found / captions if captions else None
    return Summary("image_to_text_r1", metrics)


def _pooled(records: Sequence[ImageRecord]) -> list[tuple[int, int, int]]:
    return [cell for record in records for cell in record.counts]


def _mean(records: Sequence[ImageRecord], name: str) -> float | None:
    """The mean over the images that have this figure; exact in any order."""
    values = [value for record in records if (value := record.scores.get(name)) is not None]
    return math.fsum(values) / len(values) if values else None


def _definition(name: str) -> str:
    stem, _, k = name.rpartition("_r")
    return DEFINITIONS[stem].format(k=k) if stem in DEFINITIONS else DEFINITIONS[name]
