"""``report.html``: an evaluation as one file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.evaluation.result import Document, TaskResult
from clippy_cli.reporting.evaluation import figures as figures
from clippy_cli.reporting.files import write_whole
from clippy_cli.reporting.overlay import LegendItem

Rank = Literal["best", "median", "worst"]

_TEMPLATES = resources.files("clippy_cli") / "assets"
_TEMPLATE = "report.html.j2"
_MAX_SIDE = 480
_QUALITY = 82
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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(_TEMPLATES)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=figures.percent, metric=figures.metric_name, written=figures.written)
    page = environment.get_template(_TEMPLATE).render(
        document=document,
        summary=figures.side_by_side(document),
        figures=figures,
        bars=_bars,
        duration=_duration,
        examples=[_shown(own) for own in examples] or [[] for _ in document.results],
    )
    return write_whole(path, lambda stream: stream.write(page.encode("utf-8", errors="replace")))


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
                ("photo", _data_uri(example.photo)),
                ("prediction", _data_uri(example.prediction)),
                ("annotation", _data_uri(example.annotation)),
            ),
            tuple(("#{:02x}{:02x}{:02x}".format(*item.rgb), item.text) for item in example.legend),
        )
        for example in own
    ]


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """(H,W,3) uint8 -> a JPEG within the page."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _duration(seconds: float) -> str:
    """Seconds as text, minutes and hours where there are any."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
