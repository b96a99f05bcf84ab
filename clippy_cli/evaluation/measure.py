"""What one image adds to a set's figures, task by task: from patch embeddings or scores to an :class:`ImageRecord`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.benchmarks.base import (
    IGNORE,
    AnnotatedRegions,
    ClassificationSet,
    ClassifiedImage,
    SegmentationSet,
    SegmentedImage,
)
from clippy_cli.data.prompts import prompt_embeddings
from clippy_cli.data.regions import find_regions, read_regions
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.clustering import cluster_logits
from clippy_cli.evaluation.metrics.classification import topk_hits
from clippy_cli.evaluation.metrics.grouping import (
    contingency,
    jaccard,
    jaccard_best,
    probabilistic_rand_index,
    segmentation_covering,
    variation_of_information,
)
from clippy_cli.evaluation.metrics.segmentation import confusion_matrix, mean_iou, sparse_counts
from clippy_cli.evaluation.protocol import Settings, background_rule, class_texts
from clippy_cli.evaluation.result import ImageRecord
from clippy_cli.inference.class_map import class_map
from clippy_cli.inference.group import Method, group_patches
from clippy_cli.inference.refine.refinement import refine, refined_classes
from clippy_cli.inference.regions import vote
from clippy_cli.model.base import VisionLanguageModel

TOP = (1, 5)

Sample = SegmentedImage | AnnotatedRegions | ClassifiedImage
Measure = Callable[[int, Sample, Tensor], ImageRecord]


class Segmenter:
    """Top-down segmentation of a set's images by a model, under settings; the text side is done once."""

    def __init__(self, model: VisionLanguageModel, images: SegmentationSet, settings: Settings) -> None:
        asked = class_texts(images, settings)
        if max(asked.classes, default=0) >= IGNORE:
            raise ClippyError(f"{images.info.name} has more than {IGNORE} classes", "Split it into smaller sets.")
        self._texts = prompt_embeddings(model, asked.texts, settings.templates).float()  # (K,D)
        self._classes = asked.classes
        self._rule = background_rule(images, settings)
        self._refine, self._logit_scale = settings.refine, settings.logit_scale
        self._last: tuple[Tensor, Tensor] | None = None

    def predict(self, patches: Tensor, image: NDArray[np.uint8], height: int, width: int) -> Tensor:
        """(h,w,D) patch embeddings, their photo (H,W,3) -> (height,width) uint8 class indices on the same device."""
        if self._last is None or self._last[0] is not patches:  # the plain figures and those with regions share one
            self._last = patches, self._predict(patches, image, height, width)
        return self._last[1]

    def predict_regions(self, patches: Tensor, image: NDArray[np.uint8], regions: NDArray[np.int32]) -> Tensor:
        """As :meth:`predict` at the regions' size, and each of them, from 1, in the class of most of its pixels."""
        plain = self.predict(patches, image, *regions.shape)
        voted = vote(plain.cpu().numpy().astype(np.int16), regions, self._maps(patches), self._classes)
        return torch.from_numpy(voted.astype(np.uint8)).to(plain.device)

    def _predict(self, patches: Tensor, image: NDArray[np.uint8], height: int, width: int) -> Tensor:
        maps = self._maps(patches)
        if self._refine is None:
            return class_map(maps, self._classes, height, width, background=self._rule)
        refined = refine(maps * self._logit_scale, self._classes, image, self._refine)
        return refined_classes(refined, height, width, self._rule)

    def _maps(self, patches: Tensor) -> Tensor:
        """(h,w,D) -> (K,h,w) cosines."""
        return torch.einsum("hwd,kd->khw", patches, self._texts)


def measure_segmentation(
    segmenter: Segmenter, num_classes: int, index: int, sample: Sample, patches: Tensor
) -> ImageRecord:
    """Confusion counts of one image, and the mean IoU over the classes in it."""
    sample = cast(SegmentedImage, sample)
    return _counted(segmenter.predict(patches, sample.image, *sample.mask.shape), num_classes, index, sample)


def measure_regions(
    segmenter: Segmenter, folder: Path, num_classes: int, index: int, sample: Sample, patches: Tensor
) -> ImageRecord:
    """As :func:`measure_segmentation` after each region of the photo's file in ``folder`` took its majority class.

    A photo does not count whose regions are missing, damaged or of another size than its annotation.
    """
    sample = cast(SegmentedImage, sample)
    try:
        regions = read_regions(find_regions(folder, sample.key), *sample.mask.shape)
    except ClippyError as error:
        return ImageRecord(index=index, key=sample.key, error=error.message)
    return _counted(segmenter.predict_regions(patches, sample.image, regions), num_classes, index, sample)


def _counted(predicted: Tensor, num_classes: int, index: int, sample: SegmentedImage) -> ImageRecord:
    confusion = confusion_matrix(predicted, _on(predicted, sample.mask), num_classes, IGNORE).cpu()
    return ImageRecord(
        index=index,
        key=sample.key,
        counts=sparse_counts(confusion),
        scores={"image_miou": number(mean_iou(confusion))},
    )


def measure_groups(groups: int, method: Method, index: int, sample: Sample, patches: Tensor) -> ImageRecord:
    """Jaccard both ways; with several annotators' regions, the means over them and the measures of BSDS500.

    Where a set has classes, the segments of an image are its classes, and ignored pixels do not count.
    """
    height, width = sample.image.shape[:2]
    codes = torch.from_numpy(group_patches(patches, height, width, groups=groups, method=method).codes)
    if isinstance(sample, AnnotatedRegions):
        tables = [contingency(codes, torch.from_numpy(regions)) for regions in sample.annotations]
        more = {
            "covering": _mean([segmentation_covering(table) for table in tables]),
            "probabilistic_rand_index": number(probabilistic_rand_index(tables)),
            "variation_of_information": _mean([variation_of_information(table) for table in tables]),
        }
    else:
        mask = torch.from_numpy(cast(SegmentedImage, sample).mask)
        tables, more = [contingency(codes, mask, ignore_index=IGNORE)], {}
    scores = {
        "jaccard": _mean([jaccard(table) for table in tables]),
        "jaccard_best": _mean([jaccard_best(table) for table in tables]),
    }
    return ImageRecord(index=index, key=sample.key, scores=scores | more)


def measure_clusters(centres: Tensor, num_classes: int, index: int, sample: Sample, patches: Tensor) -> ImageRecord:
    """Counts (annotated class, cluster, pixels) of one image; which class a cluster is, the whole set decides."""
    mask = cast(SegmentedImage, sample).mask
    predicted = class_map(cluster_logits(patches, centres), range(len(centres)), *mask.shape)
    counts = confusion_matrix(predicted, _on(patches, mask), num_classes, IGNORE, num_predicted=len(centres))
    return ImageRecord(index=index, key=sample.key, counts=sparse_counts(counts.cpu()))


class Classifier:
    """Zero-shot classification: the text side of it, done once."""

    def __init__(self, model: VisionLanguageModel, images: ClassificationSet, settings: Settings) -> None:
        pairs = [(word, index) for index, entry in enumerate(images.classes) for word in entry.prompts]
        self.texts = prompt_embeddings(model, [word for word, _ in pairs], settings.templates).float()  # (K,D)
        self._classes = torch.tensor([index for _, index in pairs])
        self._count = len(images.classes)

    def measure(self, index: int, sample: Sample, scores: Tensor) -> ImageRecord:
        """(K,) scores of one image -> whether its class is first, and among the first five; best synonym counts."""
        sample = cast(ClassifiedImage, sample)
        merged = torch.full((self._count,), -math.inf).scatter_reduce(0, self._classes, scores, "amax")
        hits = topk_hits(merged[None], torch.tensor([sample.target]), [k for k in TOP if k < self._count or k == 1])
        return ImageRecord(
            index=index,
            key=sample.key,
            counts=((sample.target, int(merged.argmax()), 1),),
            scores={f"top{k}": float(hit) for k, hit in hits.items()},
        )


def number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _on(where: Tensor, mask: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(mask).to(where.device)
