"""``report.html``: an evaluation as one file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clippy_cli.evaluation.result import Document, TaskResult
from clippy_cli.reporting.evaluation import figures
from clippy_cli.reporting.overlay import LegendItem
from clippy_cli.reporting.page import data_uri, write_page

Rank = Literal["best", "median", "worst"]

_RANKS: tuple[Rank, ...] = ("best", "median", "worst")


@dataclass(frozen=True)
class Example:
    """One image of a result, for the report.

    Attributes:
        key: the image's key in its set.
        score: figure of this image alone, in [0, 1].
        photo, prediction, annotation: (H,W,3) uint8 RGB, the latter two tinted already.
        legend: what the colours stand for.
    """

    rank: Rank
    key: str
    score: float
    photo: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    annotation: NDArray[np.uint8]
    legend: Sequence[LegendItem]


@dataclass(frozen=True)
class _Bar:
    """A class in the chart: where it stands from the worst and from the best."""

    name: str
    score: float | None
    accuracy: float | None
    count: int
    worst: int
    best: int


@dataclass(frozen=True)
class _Shown:
    """An example as the template needs it: pictures as (caption, data URI)."""

    rank: str
    key: str
    score: float
    pictures: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...]


def write_report(path: Path, document: Document, examples: Sequence[Sequence[Example]] = ()) -> Path:
    """Write the report of all results, with its pictures inside at up to 480 pixels; ``path`` is replaced as a whole.

    ``examples`` has a sequence for each result, in their order, or is empty.

    Names of classes and files are shown as text whatever they hold. ClippyError where ``path`` cannot be written.
    """
    return write_page(
        path,
        "report.html.j2",
        document=document,
        summary=figures.side_by_side(document),
        bars=_bars,
        duration=_duration,
        examples=[_shown(own) for own in examples] or [[] for _ in document.results],
    )


def _bars(result: TaskResult) -> list[_Bar]:
    order = figures.worst_order(result.classes)
    defined = sum(entry.score is not None for entry in result.classes)
    place = {index: position for position, index in enumerate(order)}
    return [
        _Bar(
            entry.name,
            entry.score,
            entry.accuracy,
            entry.count,
            worst=place[index],
            best=place[index] if entry.score is None else defined - place[index] - 1,  # those without stay last
        )
        for index, entry in enumerate(result.classes)
    ]


def _shown(examples: Sequence[Example]) -> list[_Shown]:
    """The examples of one result, best first."""
    own = sorted(examples, key=lambda example: (_RANKS.index(example.rank), -example.score))
    return [
        _Shown(
            example.rank,
            example.key,
            example.score,
            (
                ("photo", data_uri(example.photo)),
                ("prediction", data_uri(example.prediction)),
                ("annotation", data_uri(example.annotation)),
            ),
            tuple(("#{:02x}{:02x}{:02x}".format(*item.rgb), item.text) for item in example.legend),
        )
        for example in own
    ]


def _duration(seconds: float) -> str:
    """Seconds as text, minutes and hours where there are any."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
