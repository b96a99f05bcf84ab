"""How figures of an evaluation are named, written and lined up, alike in the terminal, in HTML and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clippy_cli.evaluation.result import ClassScore, Document, PublishedFigure, TaskResult

UNDEFINED = "–"
BITS = ("variation_of_information",)

_NAMES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "jaccard": "Jaccard (Hungarian, per image)",
    "average_best_overlap": "average best overlap (per image)",
    "hungarian_miou": "mIoU (Hungarian, whole set)",
    "hungarian_pixel_accuracy": "pixel accuracy (Hungarian, whole set)",
    "hungarian_miou_extra_dropped": "mIoU (Hungarian, extra clusters dropped)",
    "hungarian_pixel_accuracy_extra_dropped": "pixel accuracy (Hungarian, extra clusters dropped)",
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class_accuracy": "mean per-class accuracy",
    "covering": "segmentation covering (mean over images)",
    "covering_pooled": "segmentation covering (pooled over the set)",
    "probabilistic_rand_index": "probabilistic Rand index",
}


def metric_name(key: str) -> str:
    """What tables call a metric; a key of no special name gets spaces for its underscores."""
    stem, _, rank = key.rpartition("_r")
    if stem and rank.isdigit():
        return f"{metric_name(stem)} R@{rank}"
    return _NAMES.get(key, key.replace("_", " "))


def setting_name(key: str) -> str:
    """What tables call a setting of a protocol; its own name is the protocol."""
    return "protocol" if key == "name" else key.replace("_", " ")


def figure(key: str, value: float | None) -> str:
    """A metric as text: per cent with one decimal, information in bits, an en dash where undefined."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return f"{value:.2f} bits" if key in BITS else percent(value)


def percent(value: float | None) -> str:
    """A share in [0, 1] as per cent with one decimal, an en dash where undefined."""
    return UNDEFINED if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """A difference of shares as signed percentage points."""
    return UNDEFINED if value is None or math.isnan(value) else f"{round(100 * value, 1) + 0.0:+.1f}"


def score_name(result: TaskResult) -> str:
    """What the figure of one class is."""
    return "IoU" if counts_pixels(result) else "accuracy"


def counts_pixels(result: TaskResult) -> bool:
    """Whether the classes of a result count pixels; else images."""
    return result.headline.endswith("miou")


def printed(value: float) -> str:
    """A published figure, in per cent, with the decimals that it was given and at least one."""
    text = f"{value:g}"
    return text if "." in text else f"{text}.0"


def image_count(result: TaskResult) -> str:
    """The images measured on, and of how many: ``126 of 1,449``."""
    data = result.data
    whole = data.complete or data.available
    return f"{data.images:,} of {whole:,}" if data.subset and whole != data.images else f"{data.images:,}"


def counted(result: TaskResult) -> str:
    """The images measured on as words: ``126 of 1,449 images``."""
    return f"{image_count(result)} {'image' if image_count(result) == '1' else 'images'}"


def why_undefined(result: TaskResult, entry: ClassScore | None = None) -> str:
    """Why a metric, or the figure of a class, is none."""
    if entry is None:
        return "nothing in these images to measure it on" if result.data.images else "no image was counted"
    return "neither annotated nor predicted in these images" if counts_pixels(result) else "no image of this class"


def worst_order(classes: Sequence[ClassScore]) -> list[int]:
    """The order of the classes by figure, those without one last."""
    scores = [entry.score for entry in classes]
    return sorted(range(len(scores)), key=lambda index: math.inf if (score := scores[index]) is None else score)


def written(value: object) -> str:
    """A setting of a protocol as text."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key} {written(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(written(entry) for entry in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Confusion:
    """A class and what its annotated pixels or images were taken for, shares in [0, 1] of all of them."""

    entry: ClassScore
    right: float
    taken_for: tuple[tuple[str, float], ...]
    rest: float


def confused_classes(result: TaskResult, classes: int = 8, others: int = 3) -> list[Confusion]:
    """The worst annotated classes, each with its most frequent wrong answers."""
    names = [entry.name for entry in result.classes]
    rows: dict[int, dict[int, int]] = {}
    for annotated, predicted, pixels in result.confusion:
        row = rows.setdefault(annotated, {})
        row[predicted] = row.get(predicted, 0) + pixels
    found = []
    for own in worst_order(result.classes):
        entry, row = result.classes[own], rows.get(own, {})
        total = max(entry.count, sum(row.values()))  # pixels without an answer are in the one and not in the other
        if not total or entry.score is None:
            continue
        wrong = sorted(((pixels, other) for other, pixels in row.items() if other != own and pixels), reverse=True)
        taken = tuple(
            (names[other] if 0 <= other < len(names) else "no class", pixels / total)
            for pixels, other in wrong[:others]
        )
        right = row.get(own, 0) / total
        found.append(Confusion(entry, right, taken, max(0.0, 1 - right - sum(share for _, share in taken))))
        if len(found) == classes:
            break
    return found


@dataclass(frozen=True)
class PublishedGroup:
    """Figures of one metric that are comparable, or are not for the same reason, which is then ``why_not``."""

    metric: str
    why_not: str
    figures: tuple[PublishedFigure, ...]


def published_groups(result: TaskResult) -> list[PublishedGroup]:
    """The headline's metric first; of each, comparable figures first, then those with the fewest differences."""
    groups: dict[tuple[str, str], list[PublishedFigure]] = {}
    for published in result.published:
        reason = "" if published.comparable else published.why_not or "for a reason not given"
        groups.setdefault((published.metric, reason), []).append(published)
    order = sorted(
        groups, key=lambda group: (group[0] != result.headline, group[0], bool(group[1]), group[1].count(";"))
    )
    return [PublishedGroup(*key, tuple(groups[key])) for key in order]


def nothing_compares(result: TaskResult) -> bool:
    """Whether there are published figures, and none of them may be compared with ours."""
    return bool(result.published) and not any(published.comparable for published in result.published)


@dataclass(frozen=True)
class SideBySideRow:
    """One set and task, with the result of each model or None."""

    data: str
    task: str
    headline: str
    cells: tuple[TaskResult | None, ...]

    @property
    def results(self) -> tuple[TaskResult, ...]:
        """The cells that hold one."""
        return tuple(cell for cell in self.cells if cell is not None)

    @property
    def best(self) -> float | None:
        """The best figure where several models have one that is not the same, else None."""
        values = {value for cell in self.results if (value := cell.metrics.get(self.headline)) is not None}
        if len(values) < 2:
            return None
        return min(values) if self.headline in BITS else max(values)

    def distinct(self, key: str) -> str:
        """What the results say of one setting of the protocol, all values that occur; empty where none says it."""
        values = dict.fromkeys(written(cell.protocol[key]) for cell in self.results if key in cell.protocol)
        return " / ".join(values)

    @property
    def images(self) -> str:
        """The numbers of images of the results, all that occur."""
        return " / ".join(dict.fromkeys(image_count(cell) for cell in self.results))


@dataclass(frozen=True)
class SideBySide:
    """Sets and tasks against models."""

    models: tuple[str, ...]
    rows: tuple[SideBySideRow, ...]


def side_by_side(document: Document) -> SideBySide:
    """Line up all results; models of one name are labeled with their source too, or with their fingerprint."""
    keys = list(dict.fromkeys(result.model for result in document.results))
    names = [key.name for key in keys]
    sources = [(key.name, key.source) for key in keys]
    labels = []
    for key in keys:
        label = key.name
        if names.count(key.name) > 1:
            label += f" ({key.source if sources.count((key.name, key.source)) == 1 else key.fingerprint})"
        labels.append(label)
    rows: list[tuple[tuple[str, str, str], list[TaskResult | None]]] = []
    for result in document.results:
        place = (result.data.name, result.task, result.headline)
        column = keys.index(result.model)
        for other, cells in rows:
            if other == place and cells[column] is None:
                cells[column] = result
                break
        else:
            new: list[TaskResult | None] = [None] * len(keys)
            new[column] = result
            rows.append((place, new))
    return SideBySide(tuple(labels), tuple(SideBySideRow(*place, tuple(cells)) for place, cells in rows))
