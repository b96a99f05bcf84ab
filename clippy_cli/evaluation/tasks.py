"""What can be measured on which kind of set."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import get_args

from clippy_cli.data.benchmarks.base import ImageSet, Kind
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.result import Task

TASKS: Mapping[Kind, tuple[Task, ...]] = {
    "segmentation": ("segment", "group", "cluster"),
    "boundaries": ("group",),
    "classification": ("classify",),
    "retrieval": ("retrieve",),
}
WITH_REGIONS: Task = "segment+regions"  # measured beside "segment" where regions are given; nobody asks for it by name
DEFAULT_TASKS: Mapping[Kind, tuple[Task, ...]] = {**TASKS, "segmentation": ("segment", "group")}
WORDED: frozenset[Task] = frozenset({"segment", "classify", "retrieve"})  # what needs a text tower

_LACKS: Mapping[Kind, str] = {
    "segmentation": "its images have classes for pixels, not for the whole, and no captions",
    "boundaries": "its regions have no names",
    "classification": "its images have one class and no masks or captions",
    "retrieval": "its images have captions only",
}


def parse_tasks(text: str) -> tuple[Task, ...]:
    """Read ``segment,group``; ClippyError names what is unknown."""
    known: tuple[Task, ...] = tuple(task for task in get_args(Task) if task != WITH_REGIONS)
    tasks = []
    for part in (part.strip() for part in text.split(",")):
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ClippyError(f"No task is called {part!r}{meant}", f"Choose among {', '.join(known)}.")
        tasks.append(part)
    return tuple(dict.fromkeys(tasks))


def check_tasks(images: ImageSet, tasks: Sequence[Task]) -> None:
    """ClippyError where a task cannot be measured on a set."""
    possible = TASKS[images.info.kind]
    for task in tasks:
        if task not in possible:
            raise ClippyError(
                f"{images.info.name} cannot measure the task {task!r}: {_LACKS[images.info.kind]}",
                f"Its tasks are {', '.join(possible)}.",
            )


def tasks_of_sets(sets: Sequence[ImageSet], tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """For each set those of ``tasks`` that it has, or its default ones where none are named.

    ClippyError where a set has none of them, or a task fits none of the sets.
    """
    if not tasks:
        return [DEFAULT_TASKS[images.info.kind] for images in sets]
    chosen = [tuple(task for task in tasks if task in TASKS[images.info.kind]) for images in sets]
    for images, possible in zip(sets, chosen, strict=True):
        if not possible:
            check_tasks(images, tasks)
    for task in tasks:
        if not any(task in possible for possible in chosen):
            check_tasks(sets[0], [task])
    return chosen
