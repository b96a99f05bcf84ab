"""Time of a training loop: how much of it is steps, how much is waiting for data, and what was done in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Images, patch tokens and floating-point operations a second; share of waiting; mean seconds a step so far."""

    images: float
    tokens: float
    flops: float
    wait_share: float
    step_seconds: float


class Clock:
    """Counts from the last :meth:`read`; what happens inside :meth:`paused` does not count."""

    def __init__(self, step: int) -> None:
        self._images = self._tokens = 0
        self._flops = 0.0
        self._first = step
        self._total = 0.0
        self._waited = 0.0
        self._started = time.perf_counter()

    def count(self, images: int, tokens: int, flops: float) -> None:
        """Add the work of a step."""
        self._images += images
        self._tokens += tokens
        self._flops += flops

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around checkpoints, validation and evaluation."""
        start = time.perf_counter()
        yield
        self._started += time.perf_counter() - start

    def read(self, step: int) -> Pace:
        """The pace since the last call."""
        now = time.perf_counter()
        elapsed = max(now - self._started, 1e-9)
        self._total += elapsed
        share = min(1.0, self._waited / elapsed)
        mean = self._total / max(1, step - self._first)
        pace = Pace(self._images / elapsed, self._tokens / elapsed, self._flops / elapsed, share, mean)
        self._images = self._tokens = 0
        self._flops = self._waited = 0.0
        self._started = now
        return pace
