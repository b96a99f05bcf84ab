"""Figures from the literature beside ours, and whether the two may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import Field, model_validator

from clippy_cli.evaluation.result import PublishedFigure, Record, ResultTask
from clippy_cli.evaluation.tasks import Task

_FILE = resources.files("clippy_cli.evaluation") / "published.yaml"
_WATERBIRDS_FILE = resources.files("clippy_cli.evaluation") / "published_waterbirds.yaml"


class _Source(Record):
    cite: str
    read: Literal["primary", "second-hand"]


class _Row(Record):
    model: str
    source: str
    protocol: Literal["clippy", "tcl", "sclip", "other"]
    values: tuple[float | None, ...]


class _Table(Record):
    task: Task
    metric: str
    sets: tuple[str, ...]
    caveats: dict[str, str] = Field({})
    rows: tuple[_Row, ...]


class Literature(Record):
    """The content of ``published.yaml``: one table a task and metric, one value a row and set."""

    sources: dict[str, _Source]
    tables: tuple[_Table, ...]

    @model_validator(mode="after")
    def _fits(self) -> Literature:
        for table in self.tables:
            for row in table.rows:
                if len(row.values) != len(table.sets) or row.source not in self.sources:
                    raise ValueError(f"{row.model}: needs {len(table.sets)} values and a source among those listed")
            if unknown := set(table.caveats) - set(table.sets):
                raise ValueError(f"caveats of sets that are not in the table: {', '.join(sorted(unknown))}")
        return self


class PublishedWaterbirds(Record):
    """Figures of one model on the test split of Waterbirds, in per cent, None where the source gives none.

    Attributes:
        made: zero-shot, or supervised by the set's own training images.
        source: a key of the file's sources; the citation in what :func:`published_waterbirds` returns.
        why_not: what keeps the figures from being compared with ours, on the whole split too.
        average: over images, however the source weighted them.
        water_on_water: accuracy of water birds on water.
        water_on_land: accuracy of water birds on land.
    """

    model: str
    made: Literal["zero-shot", "supervised"]
    source: str
    why_not: str = Field(min_length=1)
    worst_group: float | None = None
    average: float | None = None
    water_on_water: float | None = None
    water_on_land: float | None = None


class _WaterbirdsFile(Record):
    sources: dict[str, _Source]
    rows: tuple[PublishedWaterbirds, ...]


@cache
def literature() -> Literature:
    """All published figures."""
    return Literature.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def published_for(
    set_name: str,
    task: ResultTask,
    metric: str,
    *,
    protocol: str,
    subset: bool,
    images: int | None = None,
    complete: int | None = None,
    changed: Sequence[str] = (),
) -> tuple[PublishedFigure, ...]:
    """The published figures of one set, task and metric, comparable ones first, highest first.

    Args:
        set_name: as the command line calls it.
        task: which the figures are of.
        metric: a key of a result's metrics.
        protocol: name of the protocol that our figure was made with.
        subset: whether our images are not the whole published split.
        images: how many images we counted, for the explanation.
        complete: how many the whole split has, for the explanation.
        changed: settings of the protocol that were overridden; any makes our figure incomparable.
    """
    ours = []
    if subset:
        ours.append(
            "part of the images" if images is None or complete is None else f"{images:,} of {complete:,} images"
        )
    if changed:
        ours.append(f"protocol {protocol} with another {', '.join(changed)}")
    figures = []
    for table in literature().tables:
        if (table.task, table.metric) != (task, metric) or set_name not in table.sets:
            continue
        column = table.sets.index(set_name)
        for row in table.rows:
            value = row.values[column]
            if value is None:
                continue
            reasons = [*ours, *_protocol_differs(row.protocol, protocol), *filter(None, [table.caveats.get(set_name)])]
            figures.append(
                PublishedFigure(
                    model=row.model,
                    metric=metric,
                    value=value,
                    source=_cite(literature().sources[row.source]),
                    comparable=not reasons,
                    why_not="; ".join(reasons),
                )
            )
    return tuple(sorted(figures, key=lambda figure: (not figure.comparable, -figure.value)))


@cache
def published_waterbirds() -> tuple[PublishedWaterbirds, ...]:
    """Published figures of the official Waterbirds, in the file's order: to read beside ours, never to compare.

    They say nothing about another set (a proxy, a demonstration, one of the user's own), and belong beside none.
    """
    content = _WaterbirdsFile.model_validate(yaml.safe_load(_WATERBIRDS_FILE.read_text(encoding="utf-8")))
    return tuple(row.model_copy(update={"source": _cite(content.sources[row.source])}) for row in content.rows)


def _cite(source: _Source) -> str:
    return source.cite if source.read == "primary" else f"{source.cite} (second-hand)"


def _protocol_differs(theirs: str, ours: str) -> list[str]:
    if theirs == "other":
        return [f"its own protocol, ours {ours}"]
    return [f"protocol {theirs}, ours {ours}"] if theirs != ours else []
