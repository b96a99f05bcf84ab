"""What can be measured: one module per task, found by the task's name.

A new task is a module with one :class:`~clippy_cli.evaluation.tasks.base.EvaluationTask` called ``TASK``, and one line
in :class:`Task`. Importing this package loads no torch; asking for a task's class does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from clippy_cli.errors import ClippyError

if TYPE_CHECKING:
    from clippy_cli.data.benchmarks.base import ImageSet, Kind
    from clippy_cli.evaluation.tasks.base import EvaluationTask


class Task(StrEnum):
    """The tasks by the names of their modules, in the order in which a set's default ones are measured."""

    SEGMENT = "segment"
    GROUP = "group"
    CLUSTER = "cluster"
    CLASSIFY = "classify"
    RETRIEVE = "retrieve"


_LACKS: Mapping[Kind, str] = {
    "segmentation": "its images have classes for pixels, not for the whole, and no captions",
    "boundaries": "its regions have no names",
    "classification": "its images have one class and no masks or captions",
    "retrieval": "its images have captions only",
}


def task_class(task: Task) -> type[EvaluationTask[Any, Any]]:
    """The class that measures a task; its class attributes describe it."""
    found: type[EvaluationTask[Any, Any]] = import_module(f"{__name__}.{task}").TASK
    return found


def possible_tasks(kind: Kind) -> tuple[Task, ...]:
    """The tasks that sets of one kind can measure."""
    return tuple(task for task in Task if kind in task_class(task).kinds)


def default_tasks(kind: Kind) -> tuple[Task, ...]:
    """What sets of one kind are measured on where no task is named; the first is what they are for."""
    return tuple(task for task in possible_tasks(kind) if task_class(task).by_default)


def parse_tasks(names: str | Iterable[str]) -> tuple[Task, ...]:
    """Read ``"segment,group"``, or names one by one, each taken once; ClippyError names what is unknown."""
    known = [str(task) for task in Task]
    tasks = []
    for name in (part.strip() for part in (names.split(",") if isinstance(names, str) else names)):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ClippyError(f"No task is called {str(name)!r}{meant}", f"Choose among {', '.join(known)}.")
        tasks.append(Task(name))
    return tuple(dict.fromkeys(tasks))


def check_tasks(images: ImageSet, tasks: Sequence[Task]) -> None:
    """ClippyError where a task cannot be measured on a set."""
    possible = possible_tasks(images.kind)
    for task in tasks:
        if task not in possible:
            raise ClippyError(
                f"{images.info.name} cannot measure the task {str(task)!r}: {_LACKS[images.kind]}",
                f"Its tasks are {', '.join(possible)}.",
            )


def tasks_of_sets(sets: Sequence[ImageSet], tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """For each set those of ``tasks`` that it has, or its default ones where none are named.

    ClippyError where a set has none of them, or a task fits none of the sets.
    """
    if not tasks:
        return [default_tasks(images.kind) for images in sets]
    chosen = [tuple(task for task in tasks if task in possible_tasks(images.kind)) for images in sets]
    for images, possible in zip(sets, chosen, strict=True):
        if not possible:
            check_tasks(images, tasks)
    for task in tasks:
        if not any(task in possible for possible in chosen):
            check_tasks(sets[0], [task])
    return chosen
