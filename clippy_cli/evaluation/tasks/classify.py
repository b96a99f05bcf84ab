"""Zero-shot classification of whole images; the best of a class's words counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from clippy_cli.data.benchmarks.base import ClassificationSet, ClassifiedImage
from clippy_cli.data.prompts import prompt_embeddings
from clippy_cli.evaluation.metrics.classification import accuracy_per_class, mean_per_class_accuracy, topk_hits
from clippy_cli.evaluation.result import ClassScore, ImageRecord, ResultTask
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import (
    EvaluationTask,
    Setup,
    TaskFigures,
    mean_score,
    number,
    pooled_counts,
    template_record,
)

_TOP = (1, 5)


class Classify(EvaluationTask[ClassificationSet, ClassifiedImage]):
    """Top-1 and top-5, over images and over classes."""

    task = Task.CLASSIFY
    kinds = ("classification",)
    reads_texts = True
    needs = "scores"
    headline = "top1"
    followed = ("top1",)
    compared_by = "hits"
    definitions: ClassVar[Mapping[str, str]] = {
        "top1": "Share of images whose class scores highest; ties count against the model.",
        "top5": "Share of images whose class is among the five highest; ties count against the model.",
        "mean_per_class_accuracy": "Mean over classes with images of their top-1 accuracy.",
    }

    def __init__(self, setup: Setup[ClassificationSet]) -> None:
        super().__init__(setup)
        pairs = [(word, index) for index, entry in enumerate(setup.images.classes) for word in entry.prompts]
        words = [word for word, _ in pairs]
        self.texts = prompt_embeddings(  # (K,D)
            setup.model, words, setup.settings.templates, cache=setup.cache, on_texts=setup.on_texts
        ).float()
        self._classes = torch.tensor([index for _, index in pairs])  # (K,)

    def measure(self, index: int, sample: ClassifiedImage, output: Tensor) -> dict[ResultTask, ImageRecord]:
        """(K,) scores of one image -> whether its class is first, and among the first five."""
        count = len(self.setup.images.classes)
        merged = torch.full((count,), -math.inf).scatter_reduce(0, self._classes, output, "amax")
        hits = topk_hits(merged[None], torch.tensor([sample.target]), [k for k in _TOP if k < count or k == 1])
        record = ImageRecord(
            index=index,
            key=sample.key,
            counts=((sample.target, int(merged.argmax()), 1),),
            scores={f"top{k}": float(hit) for k, hit in hits.items()},
        )
        return {Task.CLASSIFY: record}

    def summarize(self, records: Sequence[ImageRecord]) -> TaskFigures:
        names = [entry.name for entry in self.setup.images.classes]
        targets = torch.tensor([target for target, _, _ in pooled_counts(records)], dtype=torch.int64)
        hits = torch.tensor([record.scores["top1"] == 1.0 for record in records], dtype=torch.bool)
        shares = accuracy_per_class(hits, targets, len(names))
        counts = torch.bincount(targets, minlength=len(names)).tolist()
        top = [name for name in ("top1", "top5") if records and name in records[0].scores] or ["top1"]
        metrics: dict[str, float | None] = {name: mean_score(records, name) for name in top}
        metrics["mean_per_class_accuracy"] = number(mean_per_class_accuracy(hits, targets, len(names)))
        classes = tuple(
            ClassScore(name=name, score=number(share), count=count)
            for name, share, count in zip(names, shares.tolist(), counts, strict=True)
        )
        cells: dict[tuple[int, int], int] = {}
        for target, predicted, images in pooled_counts(records):
            cells[target, predicted] = cells.get((target, predicted), 0) + images
        return TaskFigures(metrics, classes, tuple((*cell, count) for cell, count in sorted(cells.items())))

    def record(self, result: ResultTask) -> dict[str, Any]:
        return {"templates": template_record(self.setup.settings), "classes": len(self.setup.images.classes)}


TASK = Classify
