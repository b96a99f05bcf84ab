"""Paired bootstrap over images: how far a difference between two models depends on which images were drawn.

N images, C classes, R resamples. Both models are measured on the same images, so that a resample draws images and takes
both models' figures of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = Sequence[Sequence[tuple[int, int, int]]]

_CHUNK_CELLS = 2**22  # of the (resamples, images) weights held at once: 32 MiB


@dataclass(frozen=True)
class Interval:
    """The 95 % percentile interval of a difference or another figure, and the figure's mean over the resamples."""

    low: float
    high: float
    mean: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ClassAreas:
    """Pixels of each class, (N,C) an image or (C,) a set: where both agree, as annotated, as predicted."""

    intersection: Floats
    annotated: Floats
    predicted: Floats

    def total(self) -> ClassAreas:
        """(N,C) -> (C,): over all images."""
        return ClassAreas(self.intersection.sum(0), self.annotated.sum(0), self.predicted.sum(0))

    def iou(self) -> Floats:
        """IoU in [0, 1], shaped as the areas; NaN where a class is neither annotated nor predicted."""
        union = self.annotated + self.predicted - self.intersection
        iou: Floats = np.divide(self.intersection, union, out=np.full(union.shape, np.nan), where=union > 0)
        return iou

    def miou(self) -> Floats:
        """(...,C) areas -> (...): mIoU in [0, 1] over classes that are annotated or predicted; NaN without any."""
        iou = self.iou()
        present = ~np.isnan(iou)
        count = present.sum(-1)
        total = np.where(present, iou, 0.0).sum(-1)
        miou: Floats = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
        return miou


def class_areas(images: Counts, num_classes: int) -> ClassAreas:
    """Sparse confusion counts of N images -> areas (N,C).

    A prediction outside 0..C-1 (a cluster that no class was assigned to) adds to no class's predicted area.

    Raises:
        ValueError: an annotated class outside 0..C-1.
    """
    shape = (len(images), num_classes)
    areas = ClassAreas(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    for row, counts in enumerate(images):
        for annotated, predicted, pixels in counts:
            if not 0 <= annotated < num_classes:
                raise ValueError(f"annotated class {annotated} is beyond 0..{num_classes - 1}")
            areas.annotated[row, annotated] += pixels
            if 0 <= predicted < num_classes:
                areas.predicted[row, predicted] += pixels
            if annotated == predicted:
                areas.intersection[row, annotated] += pixels
    return areas


def paired_bootstrap_miou(
    a: Counts, b: Counts, num_classes: int, *, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """The interval of the difference in mIoU (b minus a), one confusion matrix over the set for each resample.

    ``a`` and ``b`` hold (annotated class, predicted class, pixels) of the same images in the same order. Classes that
    a resample neither annotates nor predicts are left out of its mean. None where no pixel is annotated.
    """
    _check(a, b)
    first, second = class_areas(a, num_classes), class_areas(b, num_classes)
    # Images without a counted pixel change no area, and alone would leave a resample undefined.
    counted = (first.annotated.sum(1) > 0) | (second.annotated.sum(1) > 0)
    stacked = [
        np.stack([areas.intersection, areas.annotated, areas.predicted], axis=1)[counted] for areas in (first, second)
    ]
    columns = np.stack(stacked, axis=1).reshape(int(counted.sum()), 6 * num_classes)  # (N, 2 models x 3 areas x C)
    differences = []
    for draws in _draws(len(columns), resamples, seed):
        sums = (_weights(draws) @ columns).reshape(len(draws), 2, 3, num_classes)  # sums of integers: exact in float64
        miou = ClassAreas(sums[:, :, 0], sums[:, :, 1], sums[:, :, 2]).miou()  # (R,2)
        differences.append(miou[:, 1] - miou[:, 0])
    return percentile_interval(differences)


def paired_bootstrap_mean(
    a: Sequence[float | None], b: Sequence[float | None], *, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """The interval of the difference in the mean of per-image scores (b minus a).

    Images whose score is None or NaN in either are left out; None where no image is left.
    """
    _check(a, b)
    difference = np.array(b, dtype=np.float64) - np.array(a, dtype=np.float64)  # None becomes NaN
    difference = difference[~np.isnan(difference)]
    return percentile_interval([difference[draws].mean(1) for draws in _draws(len(difference), resamples, seed)])


def _draws(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices (r,N) of the images of each resample, in chunks; the same whatever the chunks' size."""
    if not images:
        return
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // images)
    for start in range(0, resamples, chunk):
        yield rng.integers(images, size=(min(chunk, resamples - start), images))


def _weights(draws: NDArray[np.int64]) -> Floats:
    """(r,N) indices -> (r,N): how often each image was drawn, which is multinomial."""
    rows, images = draws.shape
    cells = draws + images * np.arange(rows)[:, None]
    return np.bincount(cells.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def percentile_interval(resampled: Sequence[Floats]) -> Interval | None:
    """The interval of a figure that was computed on each resample, given in one or more arrays (r,).

    NaN, a resample that leaves the figure undefined, is left out; None where no resample defines it.
    """
    if not resampled:
        return None
    values = np.concatenate(resampled)
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high), float(values.mean()))


def _check(a: Sequence[object], b: Sequence[object]) -> None:
    if len(a) != len(b):
        raise ValueError(f"paired figures of {len(a)} and {len(b)} images")
