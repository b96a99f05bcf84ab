"""One process or several: who counts which images, and how the counts come together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from clippy_cli.errors import ClippyError

T = TypeVar("T")
_JOINING = timedelta(seconds=60)
_WORKING = timedelta(days=7)  # the first to finish waits for the last


@dataclass(frozen=True)
class Processes:
    """This process among those that ``torchrun`` started, or alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this process prints and writes results."""
        return self.rank == 0

    def share(self, blocks: Sequence[T]) -> list[T]:
        """The blocks of work of this process: every ``size``-th, so that all see images of all parts of a set."""
        return list(blocks[self.rank :: self.size])

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order of their ranks; every process must call it, and waits for all."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def device(self, wanted: str) -> str:
        """``auto`` and ``cuda`` become this process's own GPU, where there are several processes and GPUs."""
        if self.size > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return wanted


@contextmanager
def launched_processes() -> Iterator[Processes]:
    """Join the processes of a ``torchrun`` launch for the length of a block; alone without one.

    Counts are gathered over gloo, on CPU and GPU machines alike, so that they stay exact.
    """
    stated = os.environ.get("WORLD_SIZE", "1")
    if stated == "1":
        yield Processes()
        return
    try:
        dist.init_process_group("gloo", timeout=_JOINING)
        group = dist.new_group(backend="gloo", timeout=_WORKING)
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except (ValueError, RuntimeError) as error:
        raise ClippyError(
            f"WORLD_SIZE is {stated!r}, but the other processes could not be joined within "
            f"{_JOINING.total_seconds():.0f} s ({str(error).splitlines()[0]})",
            "Launch with torchrun --nproc-per-node N -m clippy_cli evaluate ..., or unset WORLD_SIZE.",
        ) from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), local_rank, group)
    finally:
        dist.destroy_process_group()
