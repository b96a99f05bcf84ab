"""Bottom-up grouping of each image alone, against its annotated segments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.benchmarks.base import IGNORE, AnnotatedRegions, RegionSet, SegmentationSet, SegmentedImage
from clippy_cli.evaluation.metrics.grouping import (
    average_best_overlap,
    contingency,
    jaccard,
    pooled_covering,
    probabilistic_rand_index,
    segmentation_covering,
    variation_of_information,
)
from clippy_cli.evaluation.result import ImageRecord, ResultTask
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import EvaluationTask, Illustration, TaskFigures, mean_score, number
from clippy_cli.inference.group import group_patches


class Group(EvaluationTask[SegmentationSet | RegionSet, SegmentedImage | AnnotatedRegions]):
    """Jaccard and average best overlap; with several annotators' regions, means over them and BSDS500's measures.

    Where a set has classes, the segments of an image are its classes, and ignored pixels do not count.
    """

    task = Task.GROUP
    kinds = ("segmentation", "boundaries")
    reads_texts = False
    needs = "patches"
    headline = "jaccard"
    followed = ("covering",)
    image_score = "jaccard"
    definitions: ClassVar[Mapping[str, str]] = {
        "jaccard": "Per image, groups matched one to one with annotated segments (Hungarian, most summed IoU); mean "
        "IoU over segments, unmatched ones 0; then the mean over images.",
        "average_best_overlap": "Per image, each annotated segment's best IoU with any group, a group may serve twice; "
        "mean over segments, then over images.",
        "covering": "Segmentation covering (Arbelaez et al. 2011): mean over annotators, then over images.",
        "covering_pooled": "Segmentation covering pooled over the regions of all annotators and images, as Berkeley's "
        "collect_eval_reg.m does: an image counts by its size and its number of annotators.",
        "probabilistic_rand_index": "Share of pixel pairs that groups and an annotator both join or both part; mean "
        "over annotators, then over images.",
        "variation_of_information": "In bits, lower is better; mean over annotators, then over images.",
    }

    def measure(
        self, index: int, sample: SegmentedImage | AnnotatedRegions, output: Tensor
    ) -> dict[ResultTask, ImageRecord]:
        codes = torch.from_numpy(self._codes(sample, output))
        if isinstance(sample, AnnotatedRegions):
            tables = [contingency(codes, torch.from_numpy(regions)) for regions in sample.annotations]
            more = {
                "covering": _mean([segmentation_covering(table) for table in tables]),
                "probabilistic_rand_index": number(probabilistic_rand_index(tables)),
                "variation_of_information": _mean([variation_of_information(table) for table in tables]),
            }
        else:
            tables, more = [contingency(codes, torch.from_numpy(sample.mask), ignore_index=IGNORE)], {}
        scores = {
            "jaccard": _mean([jaccard(table) for table in tables]),
            "average_best_overlap": _mean([average_best_overlap(table) for table in tables]),
        }
        pixels = sum(int(table.sum()) for table in tables) if more else 0
        return {Task.GROUP: ImageRecord(index=index, key=sample.key, scores=scores | more, pixels=pixels)}

    def summarize(self, records: Sequence[ImageRecord]) -> TaskFigures:
        names = list(dict.fromkeys(name for record in records for name in record.scores))
        metrics: dict[str, float | None] = {}
        for name in names or ["jaccard", "average_best_overlap"]:
            metrics[name] = mean_score(records, name)
            if name == "covering":
                metrics["covering_pooled"] = _pooled_covering(records)
        return TaskFigures(metrics)

    def record(self, result: ResultTask) -> dict[str, Any]:
        images, options = self.setup.images, self.setup.options
        if images.kind == "boundaries":
            segments = "regions of each annotator"
        else:
            segments = "classes of each image" + ("" if images.background is None else ", background included")
        return {"groups": options.groups, "method": options.method, "segments": segments}

    def illustrate(self, sample: SegmentedImage | AnnotatedRegions, output: Tensor) -> Illustration:
        """Groups beside the segments of one image, both numbered from 1, largest first; the first annotator's."""
        return Illustration(self._codes(sample, output), _segment_codes(sample))

    def _codes(self, sample: SegmentedImage | AnnotatedRegions, patches: Tensor) -> NDArray[np.int16]:
        height, width = sample.image.shape[:2]
        options = self.setup.options
        return group_patches(patches, height, width, groups=options.groups, method=options.method).codes


def _segment_codes(sample: SegmentedImage | AnnotatedRegions) -> NDArray[np.int16]:
    regions = sample.annotations[0] if isinstance(sample, AnnotatedRegions) else sample.mask
    _, numbers, counts = np.unique(regions, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int16)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    codes: NDArray[np.int16] = rank[numbers.reshape(regions.shape)]
    if isinstance(sample, SegmentedImage):
        codes[sample.mask == IGNORE] = 0
    return codes


def _pooled_covering(records: Sequence[ImageRecord]) -> float | None:
    known = [(value, record.pixels) for record in records if (value := record.scores.get("covering")) is not None]
    return number(pooled_covering([value for value, _ in known], [pixels for _, pixels in known]))


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


TASK = Group
