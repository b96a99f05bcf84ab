"""What comes after the encoder runs in threads of its own, while the encoder takes the next photos."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

MOST_WORKERS = 8
_WAITING_PIXELS = 64_000_000  # of photos that are encoded and not finished; one photo more than this goes alone

Item = TypeVar("Item")
T = TypeVar("T")


def finish_beside(
    items: Iterable[Item], finish: Callable[[Item], T], pixels: Callable[[Item], int], *, workers: int, waiting: int
) -> Iterator[T]:
    """``finish`` over ``items`` in ``workers`` threads, in order, while the next items come.

    At most ``waiting`` items are not finished, of 64 million ``pixels`` in all. The first error of ``finish`` is raised
    in its place: what has been started is completed, nothing more is begun. The same holds where the caller stops.
    """
    pending: deque[tuple[int, Future[T]]] = deque()
    with ThreadPoolExecutor(workers, "finish", initializer=_alone) as pool:
        try:
            for item in items:
                size = pixels(item)
                while pending and (len(pending) >= waiting or sum(n for n, _ in pending) + size > _WAITING_PIXELS):
                    yield pending.popleft()[1].result()
                pending.append((size, pool.submit(finish, item)))
            while pending:
                yield pending.popleft()[1].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def finishing_threads(device: torch.device) -> int:
    """How many threads finish photos beside the encoder: as many as torch has, or an accelerator's host has cores.

    Each computes alone, so that none waits for another at each step. The encoder keeps all of torch's threads, since
    there may be little to finish; the operating system shares the cores between both.
    """
    return min(MOST_WORKERS, torch.get_num_threads() if device.type == "cpu" else _cores())


def _alone() -> None:
    torch.set_num_threads(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
