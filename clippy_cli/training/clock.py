"""Time of a training loop: how much of it is steps, and how much is waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Counts from the last :meth:`read`; what happens inside :meth:`paused` does not count."""

    def __init__(self, step: int) -> None:
        self.images = 0
        self._first = step
        self._total = 0.0
        self._waited = 0.0
        self._started = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around checkpoints and validation."""
        start = time.perf_counter()
        yield
        self._started += time.perf_counter() - start

    def read(self, step: int) -> tuple[float, float, float]:
        """Images a second and share of waiting since the last call, and mean seconds a step since the start."""
        now = time.perf_counter()
        elapsed = max(now - self._started, 1e-9)
        self._total += elapsed
        rate, share = self.images / elapsed, min(1.0, self._waited / elapsed)
        self.images, self._waited, self._started = 0, 0.0, now
        return rate, share, self._total / max(1, step - self._first)
