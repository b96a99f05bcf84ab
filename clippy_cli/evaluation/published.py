"""Figures from the literature beside ours, and whether the two may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import BeforeValidator, Field, model_validator

from clippy_cli.evaluation.conditions import CONDITIONS, UNKNOWN, Value, differences
from clippy_cli.evaluation.result import PublishedFigure, Record, ResultTask
from clippy_cli.evaluation.tasks import Task

_FILE = resources.files("clippy_cli.evaluation") / "published.yaml"
_WATERBIRDS_FILE = resources.files("clippy_cli.evaluation") / "published_waterbirds.yaml"


_Value: TypeAlias = Annotated[Value, BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


class _Source(Record):
    cite: str
    read: Literal["primary", "second-hand"]


class _Conditions(Record):
    """What figures were measured with. ``fields`` holds for every set, ``sets`` for one, and beats it."""

    where: str = Field(min_length=1)
    read: Literal["primary", "second-hand"]
    like: str | None = None
    fields: dict[str, _Value] = Field({})
    sets: dict[str, dict[str, _Value]] = Field({})


class _Row(Record):
    model: str
    source: str
    conditions: str
    values: tuple[float | None, ...]


class _Table(Record):
    task: Task
    metric: str
    sets: tuple[str, ...]
    rows: tuple[_Row, ...]


class Literature(Record):
    """The content of ``published.yaml``: one table a task and metric, one value a row and set."""

    sources: dict[str, _Source]
    conditions: dict[str, _Conditions]
    tables: tuple[_Table, ...]

    def measured_with(self, conditions: str, set_name: str) -> dict[str, Value]:
        """What the figure of one set was measured with, by condition; a condition that is not there is unknown."""
        entry = self.conditions[conditions]
        inherited = self.measured_with(entry.like, set_name) if entry.like else {}
        return inherited | entry.fields | entry.sets.get(set_name, {})

    @model_validator(mode="after")
    def _fits(self) -> Literature:
        for table in self.tables:
            for row in table.rows:
                if len(row.values) != len(table.sets) or row.source not in self.sources:
                    raise ValueError(f"{row.model}: needs {len(table.sets)} values and a source among those listed")
                if row.conditions not in self.conditions:
                    raise ValueError(f"{row.model}: no conditions are called {row.conditions}")
        names, known = {condition.name for condition in CONDITIONS}, list[str]()
        for name, entry in self.conditions.items():
            if entry.like is not None and entry.like not in known:
                raise ValueError(f"conditions {name}: like must name an entry above it")
            known.append(name)
            stated = set(entry.fields).union(*entry.sets.values())
            if odd := stated - names:
                raise ValueError(f"conditions {name}: {', '.join(sorted(odd))} is no condition")
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
    set_name: str, task: ResultTask, metric: str, *, ours: Mapping[str, Value], incomplete: str = ""
) -> tuple[PublishedFigure, ...]:
    """The published figures of one set, task and metric, comparable ones first, highest first.

    Args:
        set_name: as the command line calls it.
        task: which the figures are of.
        metric: a key of a result's metrics.
        ours: what our figure was measured with, see :func:`~clippy_cli.evaluation.conditions.measured_with`.
        incomplete: that our images are not the whole published split, in words such as ``126 of 1,449 images``.
    """
    content, figures = literature(), []
    for table in content.tables:
        if (table.task, table.metric) != (task, metric) or set_name not in table.sets:
            continue
        column = table.sets.index(set_name)
        for row in table.rows:
            value = row.values[column]
            if value is None:
                continue
            theirs = content.measured_with(row.conditions, set_name)
            reasons = [*([incomplete] if incomplete else []), *differences(theirs, ours)]
            described = content.conditions[row.conditions]
            figures.append(
                PublishedFigure(
                    model=row.model,
                    metric=metric,
                    value=value,
                    source=_cite(content.sources[row.source]),
                    comparable=not reasons,
                    why_not="; ".join(reasons),
                    conditions={name: theirs.get(name, UNKNOWN) for name in ours},
                    conditions_from=f"{described.where} ({described.read})",
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
