"""Where the time of a run goes: seconds by stage, which ``--profile`` prints.

Outside :func:`profiled` a :func:`stage` costs one look at a variable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# What commands call their stages, so that tables of two commands can be compared.
LOAD_MODEL, TEXTS, DECODE, ENCODER = "load model", "texts", "decode", "encoder"
LABEL_MAP, REFINE, PCA = "label map", "refine", "pca"
MEASURE, REPORT = "measure", "report"
OVERLAY, MASK, JSON, OWN_FILES = "overlay", "mask", "JSON", "own files"
OTHER = "other"  # what the main thread spends outside all stages, waiting for other threads included


@dataclass(frozen=True)
class Spent:
    """What one stage took: ``seconds`` without the stages inside it, all threads added up, in ``calls`` entries."""

    stage: str
    seconds: float
    calls: int


class Profile:
    """Seconds of each stage; any number of threads may be in stages at a time."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, Spent] = {}
        self._lock = threading.Lock()
        self._inside = threading.local()
        self._main = threading.get_ident()
        self._covered = 0.0
        self._wall: float | None = None

    @property
    def wall(self) -> float:
        """Seconds from start to stop, or to now."""
        return time.perf_counter() - self._started if self._wall is None else self._wall

    @property
    def spent(self) -> list[Spent]:
        """The stages in the order in which each was first left. With several threads they add up to more than wall."""
        with self._lock:
            return list(self._spent.values())

    @property
    def other(self) -> float:
        """Seconds that the thread which began the profile spent outside all stages, waiting included."""
        return max(0.0, self.wall - self._covered)

    def stop(self) -> None:
        """End the wall clock; the first call counts."""
        self._wall = self.wall

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as ``name``'s, and not as that of the stage around it."""
        around: list[float] = self._inside.__dict__.setdefault("seconds", [])
        around.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            own = seconds - around.pop()
            if around:
                around[-1] += seconds
            elif threading.get_ident() == self._main:
                self._covered += seconds
            with self._lock:
                before = self._spent.get(name, Spent(name, 0.0, 0))
                self._spent[name] = Spent(name, before.seconds + own, before.calls + 1)


_current: Profile | None = None


@contextmanager
def profiled() -> Iterator[Profile]:
    """Collect the stages of the block, in all threads; what was collected before goes on afterwards.

    >>> with profiled() as profile, stage("encoder"), stage("text"):
    ...     pass
    >>> [spent.stage for spent in profile.spent]
    ['text', 'encoder']
    """
    global _current
    before, _current = _current, Profile()
    profile = _current
    try:
        yield profile
    finally:
        profile.stop()
        _current = before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time the block under ``name`` where a profile is being taken."""
    profile = _current
    if profile is None:
        yield
        return
    with profile.stage(name):
        yield
