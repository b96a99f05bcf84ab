"""The images that a report shows of a result: the best, the one in the middle and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.benchmarks.base import IGNORE, AnnotatedRegions, SegmentationSet, SegmentedImage
from clippy_cli.data.images import dense_size, resize_image
from clippy_cli.evaluation.evaluate import Evaluated
from clippy_cli.evaluation.result import ImageRecord, TaskResult
from clippy_cli.evaluation.run import Options
from clippy_cli.inference.group import group_patches
from clippy_cli.inference.views import view_embeddings
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.reporting.evaluation.report import Example, Rank
from clippy_cli.reporting.overlay import LegendItem, tint
from clippy_cli.reporting.palette import colour

_SCORES = {"segment": "image_miou", "group": "jaccard"}
_RANKS: tuple[Rank, ...] = ("best", "median", "worst")


def draw_examples(model: VisionLanguageModel, evaluated: Evaluated, options: Options) -> list[list[Example]]:
    """Segment or group the best, median and worst image of each result again, and draw them beside their annotation.

    A list for each result; it is empty for tasks without masks, and for a result without images.
    """
    return [
        [
            _draw(model, evaluated, result, options, rank, record)
            for rank, record in pick(evaluated.records[result.task], _SCORES.get(result.task, ""))
        ]
        for result in evaluated.results
    ]


def pick(records: Sequence[ImageRecord], score: str) -> list[tuple[Rank, ImageRecord]]:
    """The images of highest, middle and lowest score; of fewer than three, as many as there are."""
    scored = [record for record in records if record.scores.get(score) is not None]
    scored.sort(key=lambda record: (-cast(float, record.scores[score]), record.index))
    places = dict.fromkeys((0, len(scored) // 2, len(scored) - 1)) if scored else {}
    return [(rank, scored[place]) for rank, place in zip(_RANKS, places, strict=False)]


def _draw(
    model: VisionLanguageModel,
    evaluated: Evaluated,
    result: TaskResult,
    options: Options,
    rank: Rank,
    record: ImageRecord,
) -> Example:
    sample = cast(Any, evaluated.images).read(record.index)
    settings = evaluated.settings
    height, width = sample.image.shape[:2]
    short_side = settings.views.short_side(settings.resolution)
    resized = resize_image(sample.image, *dense_size(height, width, short_side, model.preprocess.patch_size))
    patches = view_embeddings(model, [resized], settings.views)[0]
    if result.task == "segment":
        images = cast(SegmentationSet, evaluated.images)
        assert evaluated.segmenter is not None
        predicted = evaluated.segmenter.predict(patches, sample.image, height, width).cpu().numpy().astype(np.int16) + 1
        annotated = _class_codes(sample)
        shown = np.union1d(np.unique(predicted), np.unique(annotated))
        names = [entry.name for entry in images.classes]
        legend = [LegendItem(colour(int(code)), names[code - 1]) for code in shown if code > 0]
    else:
        predicted = group_patches(patches, height, width, groups=options.groups, method=options.method).codes
        annotated, legend = _segment_codes(sample), []
    return Example(
        rank=rank,
        key=record.key,
        score=cast(float, record.scores[_SCORES[result.task]]),
        photo=sample.image,
        prediction=tint(sample.image, predicted),
        annotation=tint(sample.image, annotated),
        legend=legend,
    )


def _class_codes(sample: SegmentedImage) -> NDArray[np.int16]:
    """Class i as code i + 1, pixels that do not count as 0."""
    return np.where(sample.mask == IGNORE, 0, sample.mask.astype(np.int16) + 1).astype(np.int16)


def _segment_codes(sample: SegmentedImage | AnnotatedRegions) -> NDArray[np.int16]:
    """The segments of one image from 1, largest first, as groups are numbered; of several annotators the first's."""
    regions = sample.annotations[0] if isinstance(sample, AnnotatedRegions) else sample.mask
    _, numbers, counts = np.unique(regions, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int16)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    codes: NDArray[np.int16] = rank[numbers.reshape(regions.shape)]
    if isinstance(sample, SegmentedImage):
        codes[sample.mask == IGNORE] = 0
    return codes
