"""Two stored evaluations side by side, on the images that both have counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.bootstrap import (
    Counts,
    Interval,
    class_areas,
    paired_bootstrap_mean,
    paired_bootstrap_miou,
)
from clippy_cli.evaluation.metrics.grouping import hungarian_assignment
from clippy_cli.evaluation.metrics.segmentation import dense_counts
from clippy_cli.evaluation.result import ImageRecord, ResultTask, TaskResult, measured_task
from clippy_cli.evaluation.stored import load_document, load_images
from clippy_cli.evaluation.tasks import task_class

_ROUNDING = 5e-5  # stored and recomputed figures may differ by this much with no warning
_SHOWN = 5
_MAX_CLUSTERS = 2**14  # a bound for files from elsewhere


@dataclass(frozen=True)
class ClassDifference:
    """A class's figure in [0, 1] in both; None where undefined."""

    name: str
    a: float | None
    b: float | None

    @property
    def difference(self) -> float | None:
        """b minus a."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True)
class PairedResult:
    """One set and task in both files.

    Attributes:
        metric: what ``a``, ``b`` and the interval are figures of, a key of the results' metrics.
        images: images counted in both; all figures here are over these alone.
        interval: of b minus a; None where nothing is defined.
        classes: largest absolute difference first, undefined ones last; empty where the task has no classes.
        warnings: what makes the two less than equal measurements.
    """

    data: str
    task: ResultTask
    metric: str
    model_a: str
    model_b: str
    images: int
    a: float | None
    b: float | None
    interval: Interval | None
    classes: tuple[ClassDifference, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """All that two files have in common; ``notes`` says what was paired with what and what has no partner."""

    file_a: Path
    file_b: Path
    pairs: tuple[PairedResult, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Figures:
    """What the images of a pair give: overall, per class, and the interval."""

    metric: str
    a: float | None
    b: float | None
    interval: Interval | None
    classes: tuple[ClassDifference, ...] = ()


def compare(path_a: Path, path_b: Path, *, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Pair the results of two files by set and task, and give differences (b minus a) with 95 % bootstrap intervals.

    Several models of one set and task are paired in order. A resample keeps the class that the whole set assigns to
    each cluster.

    Raises:
        ClippyError: a file that cannot be read or is of another schema version, a missing file of images, results of
            which none has a partner, or results over other classes.
    """
    (file_a, document_a), (file_b, document_b) = load_document(path_a), load_document(path_b)
    groups_a, groups_b = _grouped(document_a.results), _grouped(document_b.results)
    notes = []
    pairs = []
    for (name, task), results_a in groups_a.items():
        results_b = groups_b.get((name, task), [])
        several = max(len(results_a), len(results_b)) > 1
        for a, b in zip(results_a, results_b, strict=False):
            if several:
                notes.append(f"{name} ({task}): paired in order, {a.model.name} with {b.model.name}")
            pairs.append(_pair(a, load_images(file_a, a), b, load_images(file_b, b), resamples, seed))
        notes += [_alone(result, file_a) for result in results_a[len(results_b) :]]
    for key, results_b in groups_b.items():
        notes += [_alone(result, file_b) for result in results_b[len(groups_a.get(key, [])) :]]
    if not pairs:
        raise ClippyError(
            f"{file_a} and {file_b} have no set and task in common: {_listed(groups_a)} against {_listed(groups_b)}",
            "Evaluate both models on the same sets with the same --task.",
        )
    return Comparison(file_a, file_b, tuple(pairs), tuple(notes))


def _pair(
    a: TaskResult,
    images_a: Mapping[str, ImageRecord],
    b: TaskResult,
    images_b: Mapping[str, ImageRecord],
    resamples: int,
    seed: int,
) -> PairedResult:
    names = tuple(entry.name for entry in a.classes)
    if names != tuple(entry.name for entry in b.classes):
        raise ClippyError(
            f"{a.data.name} ({a.task}): the classes differ, {len(a.classes)} and {len(b.classes)} of them",
            "Compare evaluations of the same classes: run both with one version of the set.",
        )
    keys = [key for key in images_a if key in images_b]
    paired_a, paired_b = [images_a[key] for key in keys], [images_b[key] for key in keys]
    warnings = _settings_differ(a, b)
    if len(keys) < max(len(images_a), len(images_b)):
        warnings.append(
            f"images counted: {len(images_a):,} and {len(images_b):,}; only the {len(keys):,} of both are used"
        )
    try:
        compared_by = task_class(measured_task(a.task)).compared_by
        if compared_by in ("pixels", "clusters"):
            moved = _other_annotation(paired_a, paired_b)
            if moved:
                warnings.append(f"annotated pixels differ in {moved:,} images: the masks are not the same")
            figures = _by_pixels(a, paired_a, paired_b, resamples, seed, clusters=compared_by == "clusters")
        elif compared_by == "hits":
            figures = _by_hits(a, paired_a, paired_b, resamples, seed)
        else:
            figures = _by_score(a, paired_a, paired_b, resamples, seed)
    except ValueError as error:
        raise ClippyError(
            f"{a.data.name} ({a.task}): the figures of the images do not fit the classes: {error}",
            "Run the evaluation again.",
        ) from error
    for result, images, value in ((a, images_a, figures.a), (b, images_b, figures.b)):
        stated = result.metrics.get(figures.metric)
        if len(images) == len(keys) and stated is not None and (value is None or abs(value - stated) > _ROUNDING):
            warnings.append(
                f"{result.model.name}: the images give {figures.metric} {'none' if value is None else f'{value:.4f}'}, "
                f"result.json says {stated:.4f}"
            )
    if figures.interval is None:
        warnings.append(f"no image that both have counted has a figure of {figures.metric}")
    return PairedResult(
        a.data.name,
        a.task,
        figures.metric,
        a.model.name,
        b.model.name,
        len(keys),
        figures.a,
        figures.b,
        figures.interval,
        tuple(sorted(figures.classes, key=_by_difference)),
        tuple(warnings),
    )


def _by_pixels(
    result: TaskResult, a: Sequence[ImageRecord], b: Sequence[ImageRecord], resamples: int, seed: int, *, clusters: bool
) -> _Figures:
    """mIoU over one confusion matrix, of ``clusters`` after they took their classes."""
    size = len(result.classes)
    counts_a: Counts = [record.counts for record in a]
    counts_b: Counts = [record.counts for record in b]
    if clusters:
        counts_a, counts_b = _assigned(counts_a, size), _assigned(counts_b, size)
    areas_a, areas_b = class_areas(counts_a, size).total(), class_areas(counts_b, size).total()
    classes = _differences(result, areas_a.iou().tolist(), areas_b.iou().tolist())
    interval = paired_bootstrap_miou(counts_a, counts_b, size, resamples=resamples, seed=seed)
    miou_a, miou_b = _number(float(areas_a.miou())), _number(float(areas_b.miou()))
    return _Figures(task_class(measured_task(result.task)).headline, miou_a, miou_b, interval, classes)


def _by_hits(
    result: TaskResult, a: Sequence[ImageRecord], b: Sequence[ImageRecord], resamples: int, seed: int
) -> _Figures:
    """Top-1 accuracy."""
    size = len(result.classes)
    hits = [[_hit(record) for record in records] for records in (a, b)]
    totals = [class_areas([record.counts for record in records], size).total() for records in (a, b)]
    accuracies = [
        np.divide(t.intersection, t.annotated, out=np.full(size, np.nan), where=t.annotated > 0).tolist()
        for t in totals
    ]
    interval = paired_bootstrap_mean(*hits, resamples=resamples, seed=seed)
    return _Figures("top1", *_paired_means(*hits), interval, _differences(result, *accuracies))


def _by_score(
    result: TaskResult, a: Sequence[ImageRecord], b: Sequence[ImageRecord], resamples: int, seed: int
) -> _Figures:
    """The mean over images of the headline's score of each image alone."""
    scores = [[record.scores.get(result.headline) for record in records] for records in (a, b)]
    interval = paired_bootstrap_mean(*scores, resamples=resamples, seed=seed)
    return _Figures(result.headline, *_paired_means(*scores), interval)


def _assigned(images: Counts, num_classes: int) -> Counts:
    """Clusters renamed to the classes that the whole set assigns to them, by most pixels; the others to -1."""
    clusters = 1 + max((predicted for counts in images for _, predicted, _ in counts), default=-1)
    if clusters > _MAX_CLUSTERS:
        raise ValueError(f"cluster {clusters - 1} is beyond 0..{_MAX_CLUSTERS - 1}")
    pooled = [cell for counts in images for cell in counts]
    classes = hungarian_assignment(dense_counts(pooled, num_classes, clusters).T).tolist()
    return [[(annotated, classes[cluster], pixels) for annotated, cluster, pixels in counts] for counts in images]


def _settings_differ(a: TaskResult, b: TaskResult) -> list[str]:
    """What was not the same in the two measurements, one line each."""
    warnings = [
        f"protocol{'' if key == 'name' else f', {key}'}: {_shown(mine)} and {_shown(theirs)}"
        for key in sorted({*a.protocol, *b.protocol})
        if (mine := a.protocol.get(key)) != (theirs := b.protocol.get(key))
    ]
    warnings += [
        f"{metric} is defined in two ways: {a.definitions[metric]!r} and {b.definitions[metric]!r}"
        for metric in sorted({*a.definitions} & {*b.definitions})
        if a.definitions[metric] != b.definitions[metric]
    ]
    if a.headline != b.headline:
        warnings.append(f"headline figures: {a.headline} and {b.headline}")
    if a.data.annotation != b.data.annotation:
        warnings.append(f"annotation: {_shown(a.data.annotation)} and {_shown(b.data.annotation)}")
    if a.data.title != b.data.title:
        warnings.append(f"set: {a.data.title} and {b.data.title}")
    return warnings


def _other_annotation(a: Sequence[ImageRecord], b: Sequence[ImageRecord]) -> int:
    """The number of images whose annotated pixels are not the same, class by class."""
    return sum(_annotated(first) != _annotated(second) for first, second in zip(a, b, strict=True))


def _annotated(record: ImageRecord) -> dict[int, int]:
    pixels: dict[int, int] = {}
    for annotated, _, number in record.counts:
        pixels[annotated] = pixels.get(annotated, 0) + number
    return pixels


def _hit(record: ImageRecord) -> float | None:
    """Top-1 of an image as it was scored; without a score, whether the predicted class is the annotated one."""
    if "top1" in record.scores or not record.counts:
        return record.scores.get("top1")
    return float(any(target == predicted for target, predicted, _ in record.counts))


def _paired_means(a: Sequence[float | None], b: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The means over images that have a score in both."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        return None, None
    return sum(x for x, _ in pairs) / len(pairs), sum(y for _, y in pairs) / len(pairs)


def _differences(result: TaskResult, a: Sequence[float], b: Sequence[float]) -> tuple[ClassDifference, ...]:
    return tuple(
        ClassDifference(entry.name, _number(x), _number(y)) for entry, x, y in zip(result.classes, a, b, strict=True)
    )


def _by_difference(entry: ClassDifference) -> float:
    return 1.0 if entry.difference is None else -abs(entry.difference)


def _number(value: float) -> float | None:
    return None if value != value else value


def _grouped(results: Sequence[TaskResult]) -> dict[tuple[str, ResultTask], list[TaskResult]]:
    groups: dict[tuple[str, ResultTask], list[TaskResult]] = {}
    for result in results:
        groups.setdefault((result.data.name, result.task), []).append(result)
    return groups


def _alone(result: TaskResult, file: Path) -> str:
    return f"{result.data.name} ({result.task}, {result.model.name}): only in {file}, left out"


def _listed(groups: Mapping[tuple[str, ResultTask], object]) -> str:
    names = [f"{name} ({task})" for name, task in groups]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"


def _shown(value: object) -> str:
    return "none" if value in (None, "") else str(value)
