"""The images that a report shows of a result: the best, the one in the middle and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clippy_cli.evaluation.result import ImageRecord
from clippy_cli.evaluation.set_evaluation import SetEvaluation
from clippy_cli.evaluation.tasks.base import EvaluationTask
from clippy_cli.reporting.evaluation.report import Example, Rank
from clippy_cli.reporting.overlay import LegendItem, tint
from clippy_cli.reporting.palette import colour

_RANKS: tuple[Rank, ...] = ("best", "median", "worst")


def draw_examples(evaluation: SetEvaluation) -> list[list[Example]]:
    """Measure the best, median and worst image of each result again, and draw them beside their annotation.

    A list for each result; it is empty for tasks without pictures, and for a result without images. The tasks of the
    evaluation must not be released yet.
    """
    examples: list[list[Example]] = []
    for task in evaluation.tasks.values():
        for name in task.results:
            score = task.image_score if name == task.task else None
            picked = [] if score is None else pick(evaluation.records[name], score)
            drawn = [_draw(task, rank, record, value) for rank, record, value in picked]
            examples.append([example for example in drawn if example is not None])
    return examples


def pick(records: Sequence[ImageRecord], score: str) -> list[tuple[Rank, ImageRecord, float]]:
    """The images of highest, middle and lowest score, with it; of fewer than three, as many as there are."""
    scored = [(value, record) for record in records if (value := record.scores.get(score)) is not None]
    scored.sort(key=lambda pair: (-pair[0], pair[1].index))
    places = dict.fromkeys((0, len(scored) // 2, len(scored) - 1)) if scored else {}
    return [(rank, scored[place][1], scored[place][0]) for rank, place in zip(_RANKS, places, strict=False)]


def _draw(task: EvaluationTask[Any, Any], rank: Rank, record: ImageRecord, score: float) -> Example | None:
    sample = task.setup.images.read(record.index)
    drawn = task.illustrate(sample, task.setup.encode_patches([task.setup.resize(sample.image)])[0])
    if drawn is None:
        return None
    codes = np.union1d(np.unique(drawn.predicted), np.unique(drawn.annotated)).tolist() if drawn.names else []
    return Example(
        rank=rank,
        key=record.key,
        score=score,
        photo=sample.image,
        prediction=tint(sample.image, drawn.predicted),
        annotation=tint(sample.image, drawn.annotated),
        legend=[LegendItem(colour(code), drawn.names[code - 1]) for code in codes if code > 0],
    )
