"""One process or several: which part of the work each does, how values come together, and how a failure ends all."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from clippy_cli.errors import ClippyError, ExitCode

T = TypeVar("T")
_JOINING = timedelta(seconds=60)
_COLLECTIVES = timedelta(hours=2)  # others wait while one writes a checkpoint or measures
_WORKING = timedelta(days=7)  # the first to finish waits for the last
_FAILED = "clippy/failed"
_WATCH_SECONDS = 0.5
_BROKEN_OFF = re.compile(r"Connection (closed|reset|refused)|Broken pipe|gloo|NCCL")  # what collectives say


class OtherProcessFailed(ClippyError):
    """Another process of the launch failed, and says so itself; this one only has to leave."""

    def __init__(self) -> None:
        super().__init__("Another process of this launch failed.")


@dataclass(frozen=True)
class Processes:
    """This process among those that ``torchrun`` started, or alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
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

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the first process of each machine, then in its others, which find what it left on disk.

        A ClippyError of one ends all: it is raised where it happened, and OtherProcessFailed elsewhere.
        """
        if self.size == 1:
            return work()
        result: list[T] = []
        for mine in (self.local_rank == 0, self.local_rank != 0):
            error: ClippyError | None = None
            if mine:
                try:
                    result.append(work())
                except ClippyError as raised:
                    error = raised
            failed = self.gather(error is not None)
            if error is not None and not any(failed[: self.rank]):
                raise error
            if any(failed):
                raise OtherProcessFailed
        return result[0]

    def in_first(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the first process and give its result to all; its ClippyError ends all."""
        if self.size == 1:
            return work()
        answer: list[Any] = [None, True]
        error: ClippyError | None = None
        if self.first:
            try:
                answer = [work(), False]
            except ClippyError as raised:
                error = raised
        dist.broadcast_object_list(answer, src=0, group=self.group)
        if error is not None:
            raise error
        if answer[1]:
            raise OtherProcessFailed
        result: T = answer[0]
        return result

    def device(self, wanted: str) -> str:
        """``auto`` and ``cuda`` become this process's own GPU, where there are several processes and GPUs."""
        if self.size > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return wanted


ALONE = Processes()


class Votes:
    """Gathers a small number from every process without waiting: each call returns the largest of the call before.

    All processes get the same answer after the same number of calls, so that they stop at the same step.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._pending: tuple[Any, torch.Tensor] | None = None

    def cast(self, value: int) -> int:
        """Give this process's number; alone, it is the answer at once."""
        if self._processes.size == 1:
            return value
        answer = self._read()
        votes = torch.tensor([value])
        work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._processes.group, async_op=True)
        self._pending = (work, votes)
        return answer

    def close(self) -> None:
        """Wait for the last round, which nobody reads."""
        self._read()

    def _read(self) -> int:
        if self._pending is None:
            return 0
        work, votes = self._pending
        work.wait()
        self._pending = None
        return int(votes)


@contextmanager
def launched_processes(*, command: str = "evaluate", tensors: str = "gloo") -> Iterator[Processes]:
    """Join the processes of a ``torchrun`` launch for the length of a block; alone without one.

    Objects are gathered over gloo, on CPU and GPU machines alike. ``tensors`` is the backend of everything else, such
    as ``cpu:gloo,cuda:nccl``. When a process leaves the block by an error, the others end within a second, silently:
    they may wait in a collective that will never be answered.
    """
    stated = os.environ.get("WORLD_SIZE", "1")
    if stated == "1":
        yield ALONE
        return
    try:
        store, rank, size = next(rendezvous("env://", timeout=_JOINING))
        store.set_timeout(_JOINING)
        dist.init_process_group(tensors, store=store, rank=rank, world_size=size, timeout=_COLLECTIVES)
        group = dist.new_group(backend="gloo", timeout=_WORKING)
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except (ValueError, RuntimeError) as error:
        raise ClippyError(
            f"WORLD_SIZE is {stated!r}, but the other processes could not be joined within "
            f"{_JOINING.total_seconds():.0f} s ({str(error).splitlines()[0]})",
            f"Launch with torchrun --nproc-per-node N -m clippy_cli {command} ..., or unset WORLD_SIZE.",
        ) from error
    watch = _FailureWatch(store, rank)
    try:
        yield Processes(rank, size, local_rank, local_size, group)
    except OtherProcessFailed:
        watch.leave()
    except RuntimeError as error:
        if watch.failed_elsewhere():  # a collective broke off because another process is gone
            watch.leave()
        first = watch.announce()
        broken_off = _BROKEN_OFF.search(str(error))
        if broken_off is None:
            raise
        if not first:
            watch.leave()
        raise ClippyError(
            f"Another process of this launch exited without reporting an error ({broken_off[0]}).",
            "Look for what ended it, such as a lack of memory; then launch as before, with --resume where it trained.",
        ) from error
    except BaseException as error:
        if not watch.announce() and isinstance(error, ClippyError):
            watch.leave()  # all came to the same error; one says it
        raise
    watch.close()
    dist.destroy_process_group()


class _FailureWatch:
    """A flag in the launch's store, which a thread of each process looks at."""

    def __init__(self, store: Any, rank: int) -> None:
        self._rank = str(rank)
        self._store = store.clone()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def announce(self) -> bool:
        """Say that this process fails; False where another one said so before."""
        self.close()
        try:
            return bool(self._store.compare_set(_FAILED, "", self._rank).decode() == self._rank)
        except RuntimeError:  # the store is gone with the process that kept it
            return False

    def failed_elsewhere(self) -> bool:
        """Whether another process fails, after a moment in which it can say so."""
        deadline = time.monotonic() + 4 * _WATCH_SECONDS
        while time.monotonic() < deadline:
            if self._flagged():
                return True
            time.sleep(_WATCH_SECONDS / 4)
        return False

    def leave(self) -> None:
        """End this process silently and without waiting for anything."""
        os._exit(ExitCode.FAILED)

    def close(self) -> None:
        self._closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            if self._flagged():
                self.leave()

    def _flagged(self) -> bool:
        try:
            return bool(self._store.check([_FAILED]))
        except RuntimeError:
            return True
