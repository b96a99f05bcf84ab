"""Suites: sets that papers report together under one protocol, with the mean over them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from clippy_cli.checked_yaml import conflict, load_checked
from clippy_cli.data.benchmarks import catalogue
from clippy_cli.data.benchmarks.base import data_root
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.published import published_for
from clippy_cli.evaluation.result import Record, SuiteRecord, SuiteRow, TaskResult
from clippy_cli.evaluation.tasks import Task, task_class
from clippy_cli.regular_files import is_file

_FILE = resources.files("clippy_cli.evaluation") / "suites.yaml"


class Suite(Record):
    """What is measured together.

    Attributes:
        title: in words.
        source: who reports these sets together.
        task: what every set is measured on.
        metric: the figure of a column, and what is averaged.
        sets: a name of ``clippy sets`` or a YAML file of your own set, and the head of its column.
    """

    title: str
    source: str = ""
    task: Task
    metric: str
    sets: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _metric_is_of_the_task(self) -> Suite:
        known = task_class(self.task).definitions
        if self.metric not in known:
            raise conflict(f"{self.task} has no metric {self.metric!r}; choose among {', '.join(known)}", "metric")
        return self


@dataclass(frozen=True)
class OpenSuite:
    """A suite on this machine: its name, the sets that were found, and where each missing one was looked for."""

    name: str
    suite: Suite
    found: tuple[str, ...]
    missing: dict[str, str]

    def record(self, results: Sequence[TaskResult]) -> SuiteRecord:
        """The table of these results: a row per model; its average is None unless every set has a figure."""
        models = list(dict.fromkeys((result.model.name, result.model.source) for result in results))
        rows = []
        for model, source in models:
            own = {
                result.data.name: result
                for result in results
                if (result.model.name, result.model.source) == (model, source) and result.task == self.suite.task
            }
            values = tuple(
                own[name].metrics.get(self.suite.metric) if name in own else None
                for name in map(_result_name, self.suite.sets)
            )
            known = [value for value in values if value is not None]
            average = math.fsum(known) / len(known) if len(known) == len(values) else None
            rows.append(SuiteRow(model=model, values=values, average=average))
        return SuiteRecord(
            name=self.name,
            title=self.suite.title,
            source=self.suite.source,
            task=self.suite.task,
            metric=self.suite.metric,
            sets={_result_name(name): head for name, head in self.suite.sets.items()},
            missing={_result_name(name): where for name, where in self.missing.items()},
            published={
                name: published_for(name, self.suite.task, self.suite.metric, ours={}, incomplete="not measured here")
                for name in map(_result_name, self.missing)
            },
            rows=tuple(rows),
        )


def suite_names() -> tuple[str, ...]:
    """The suites that ship with the package."""
    return tuple(_shipped())


def open_suite(source: str, root: Path | None) -> OpenSuite:
    """A shipped suite by its name, or one of your own from a YAML file, with what of it is below ``root``.

    Raises:
        ClippyError: no such suite, mistakes in the file, or none of its sets is there.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        name, suite = path.stem, load_checked(path, Suite, what="suite")
    elif source in _shipped():
        name, suite = source, _shipped()[source]
    else:
        close = difflib.get_close_matches(source, suite_names(), n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ClippyError(
            f"No suite is called {source!r}{meant}",
            f"Choose among {', '.join(suite_names())}, or name a YAML file of your own.",
        )
    missing = {one: where for one in suite.sets if (where := _looked_for(one, root)) is not None}
    found = tuple(one for one in suite.sets if one not in missing)
    if not found:
        raise ClippyError(
            f"None of the {len(missing)} sets of {name} is there: "
            + "; ".join(f"{one} ({where})" for one, where in missing.items()),
            "Check --data-root; clippy sets lists where each set is looked for.",
        )
    return OpenSuite(name, suite, found, missing)


@cache
def _shipped() -> dict[str, Suite]:
    content = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: Suite.model_validate(entry) for name, entry in content.items()}


def _looked_for(name: str, root: Path | None) -> str | None:
    """Where a set was looked for in vain; None where it is there."""
    if name == catalogue.SCENES:
        return None
    if name not in catalogue.benchmark_names():
        return None if is_file(Path(name).expanduser()) else f"no file {name}"
    folder = data_root(root)
    if any(catalogue.locate(spec, folder) is not None for spec in catalogue.layouts(name)):
        return None
    return f"looked for {catalogue.places(catalogue.load_spec(name), folder)[0]}"


def _result_name(name: str) -> str:
    """What results call a set that is named so on the command line."""
    return name if name in catalogue.benchmark_names() else Path(name).stem
