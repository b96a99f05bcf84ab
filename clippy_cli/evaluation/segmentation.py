"""Zero-shot semantic segmentation of a benchmark: one confusion matrix over the whole set (arXiv 2210.09996, 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clippy_cli.data.benchmarks.base import SegmentationBenchmark, SegmentedImage
from clippy_cli.data.labels import Label, Vocabulary
from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.evaluation.metrics import (
    confusion_matrix,
    iou_per_class,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
)
from clippy_cli.inference.features import Failed, encode_images, patch_embeddings
from clippy_cli.inference.label_map import paint
from clippy_cli.inference.segment import entry_similarity
from clippy_cli.model.base import VisionLanguageModel


@dataclass(frozen=True)
class SegmentationResult:
    """What was measured, and under which protocol.

    Attributes:
        classes: C names in the order of ``confusion``.
        confusion: (C,C) int64 pixel counts, rows annotated, columns predicted.
        protocol: what was really used: resolution in pixels, templates, vocabulary size, background rule.
        failed: what could not be read, one message each; these images do not count.
    """

    benchmark: str
    model: str
    images: int
    classes: tuple[str, ...]
    confusion: Tensor
    protocol: dict[str, Any]
    failed: tuple[str, ...]

    @property
    def miou(self) -> float:
        """In [0, 1], over classes that are annotated or predicted somewhere."""
        return mean_iou(self.confusion)

    @property
    def iou(self) -> tuple[float, ...]:
        """IoU of each class in [0, 1]; NaN for one that is neither annotated nor predicted."""
        return tuple(iou_per_class(self.confusion).tolist())

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without one annotated pixel; unless predicted by mistake, they are not in the mean."""
        counts = self.confusion.sum(dim=1).tolist()
        return tuple(name for name, count in zip(self.classes, counts, strict=True) if count == 0)

    def record(self) -> dict[str, Any]:
        """Everything as plain values for JSON; NaN becomes None."""
        return {
            "benchmark": self.benchmark,
            "model": self.model,
            "images": self.images,
            "protocol": self.protocol,
            "miou": _number(self.miou),
            "pixel_accuracy": _number(pixel_accuracy(self.confusion)),
            "mean_class_accuracy": _number(mean_class_accuracy(self.confusion)),
            "iou": {name: _number(value) for name, value in zip(self.classes, self.iou, strict=True)},
            "absent_classes": list(self.absent),
            "failed": list(self.failed),
        }


def evaluate_segmentation(
    model: VisionLanguageModel,
    benchmark: SegmentationBenchmark,
    *,
    resolution: int,
    templates: str = "photo",
    limit: int | None = None,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> SegmentationResult:
    """Segment every image whole, single scale, without refinement, and count.

    Each pixel takes the class of the highest patch-text cosine, upsampled bilinearly to the annotation's size. The
    prompts of a class are merged by their maximum; the benchmark's context words count as its background class.

    Args:
        model: any model behind the one face.
        benchmark: the images and their annotation.
        resolution: short side in pixels, aspect kept, sides rounded to multiples of the patch.
        templates: name of a template set, or a template.
        limit: take the first images only.
        batch_size: most images of one size in a forward pass.
        on_progress: called with (images done, images in all).
    """
    vocabulary, codes = class_vocabulary(benchmark)
    texts = prompt_embeddings(model, vocabulary.texts, resolve_templates(templates)).float().cpu()
    total = len(benchmark) if limit is None else min(limit, len(benchmark))
    confusion = torch.zeros(len(benchmark.classes), len(benchmark.classes), dtype=torch.int64)
    failed: list[str] = []

    results = encode_images(
        range(total),
        benchmark.read,
        lambda images: patch_embeddings(model, images),
        patch_size=model.preprocess.patch_size,
        resolution=resolution,
        batch_size=batch_size,
    )
    for done, result in enumerate(results, start=1):
        if isinstance(result, Failed):
            failed.append(result.error.message)
        else:
            confusion += _count(result.sample, result.output, texts, vocabulary, codes, benchmark)
        if on_progress is not None:
            on_progress(done, total)
    protocol = {
        "resolution": resolution,
        "templates": templates,
        "texts": len(vocabulary.texts),
        "background": _background_rule(benchmark),
        "window": "whole image",
        "refinement": None,
    }
    classes = tuple(entry.name for entry in benchmark.classes)
    return SegmentationResult(
        benchmark.name, model.name, total - len(failed), classes, confusion, protocol, tuple(failed)
    )


def class_vocabulary(benchmark: SegmentationBenchmark) -> tuple[Vocabulary, tuple[int, ...]]:
    """The words to ask for, and the class that each entry of the vocabulary stands for."""
    labels = tuple(Label(entry.prompts[0], entry.prompts) for entry in benchmark.classes)
    context = tuple(Label(word, (word,)) for word in benchmark.context)
    codes = tuple(range(len(labels)))
    if benchmark.background_index is not None:
        codes += (benchmark.background_index,) * len(context)
    return Vocabulary(labels, context), codes


def _count(
    sample: SegmentedImage,
    patches: Tensor,
    texts: Tensor,
    vocabulary: Vocabulary,
    codes: tuple[int, ...],
    benchmark: SegmentationBenchmark,
) -> Tensor:
    maps = entry_similarity(patches, texts, vocabulary)  # (E,h,w)
    height, width = sample.mask.shape
    painted = paint(maps, height, width, codes).codes
    return confusion_matrix(
        torch.from_numpy(painted), torch.from_numpy(sample.mask), len(benchmark.classes), benchmark.ignore_index
    )


def _background_rule(benchmark: SegmentationBenchmark) -> str:
    if benchmark.background_index is None:
        return "none: every class is asked for, other pixels are ignored"
    name = benchmark.classes[benchmark.background_index].name
    return f"class {name!r} and {len(benchmark.context)} context words count as background"


def _number(value: float) -> float | None:
    return None if value != value else value
