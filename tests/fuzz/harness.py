"""Reads of damaged files in child processes with limits: no traceback, no hang, no more memory than is reasonable."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from clippy_cli.errors import ClippyError
from tests.fuzz.mutators import Change

SECONDS = 10
KILLED_AFTER = 30.0
BYTES = 2 << 30
_FILES_A_CHILD = 200


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        make: writes a whole one into a folder.
        read: reads the folder as clippy does; whatever it raises but ClippyError is a failure.
        changes: pattern of files -> what may be done to one; of a folder one file is changed.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    changes: Mapping[str, Sequence[Change]]


@dataclass(frozen=True)
class Failure:
    """A damaged file that was not refused in one clear message; ``seed`` makes it again."""

    kind: str
    seed: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.seed}: {self.what}"


@dataclass
class Tally:
    """What became of the damaged files of one kind: read all the same, refused in one clear message, or failures."""

    kind: str
    read: int = 0
    refused: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, seed: int, verdict: str, what: str) -> None:
        if verdict == _READ:
            self.read += 1
        elif verdict == _REFUSED:
            self.refused += 1
        else:
            self.failures.append(Failure(self.kind, seed, what))

    def __str__(self) -> str:
        files = self.read + self.refused + len(self.failures)
        return (
            f"{self.kind}: {files:,} files in {self.seconds:.0f} s: {self.refused:,} refused, {self.read:,} read, "
            f"{len(self.failures):,} not refused well"
        )


class _HangError(BaseException):
    pass


_READ, _REFUSED, _FAILED = "read", "refused", "failed"


def fuzz(name: str, kind: Kind, count: int, *, first: int = 0, timeout: float = KILLED_AFTER) -> Tally:
    """Damage ``count`` files of the kind, by the seeds from ``first`` on."""
    torch.set_num_threads(1)  # a child that is forked beside threads of OpenMP waits for them for ever
    tally, start = Tally(name), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        kind.make(whole)
        kind.read(whole)  # as it is it must be readable
        _fuzz_kind(tally, kind, whole, range(first, first + count), timeout)
    tally.seconds = time.monotonic() - start
    return tally


def damage(whole: Path, target: Path, kind: Kind, seed: int) -> Path:
    """A copy of the folder ``whole`` with one file damaged; gives that file."""
    rng = random.Random(seed)
    shutil.copytree(whole, target)
    places = sorted(
        (path, tuple(changes)) for pattern, changes in kind.changes.items() for path in target.glob(pattern)
    )
    path, changes = places[rng.randrange(len(places))]
    path.write_bytes(rng.choice(changes)(path.read_bytes(), rng))
    return path


def _fuzz_kind(tally: Tally, kind: Kind, whole: Path, seeds: range, timeout: float) -> None:
    context = multiprocessing.get_context("fork")
    left = list(seeds)
    while left:
        here, there = context.Pipe()
        child = context.Process(target=_child, args=(kind, whole, left[:_FILES_A_CHILD], there))
        child.start()
        there.close()
        _collect(tally, child, here, left, timeout)
        child.kill()
        child.join()


def _collect(tally: Tally, child: Any, results: Connection, left: list[int], timeout: float) -> None:
    """What one child says of its files, which are taken from ``left``; one that takes the child along is a failure."""
    for _ in range(min(_FILES_A_CHILD, len(left))):
        if not results.poll(timeout):
            tally.take(left.pop(0), _FAILED, f"did not answer within {timeout:g} s")
            return
        try:
            outcome = results.recv()
        except EOFError:
            child.join()
            tally.take(left.pop(0), _FAILED, f"the process ended with {child.exitcode}")
            return
        tally.take(left.pop(0), *outcome)


def _child(kind: Kind, whole: Path, seeds: Sequence[int], results: Connection) -> None:
    signal.signal(signal.SIGALRM, _alarm)
    limit = _address_space() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        for seed in seeds:
            target = Path(tempfile.mkdtemp(dir=whole.parent)) / "damaged"
            try:
                damage(whole, target, kind, seed)
                results.send(_outcome(kind, target))
            finally:
                shutil.rmtree(target.parent, ignore_errors=True)
    results.close()
    os._exit(0)


def _outcome(kind: Kind, target: Path) -> tuple[str, str]:
    """Whether the damaged file was read, refused or neither, and what is wrong with that."""
    signal.alarm(SECONDS)
    try:
        kind.read(target)
    except ClippyError as error:
        return (_REFUSED, "") if error.message.strip() else (_FAILED, "an error without a message")
    except _HangError:
        return _FAILED, f"took longer than {SECONDS} s: {_place(traceback.extract_stack())}"
    except BaseException as error:  # a panic of a library in Rust is no Exception
        where = _place(traceback.extract_tb(error.__traceback__))
        return _FAILED, f"{type(error).__name__}: {str(error)[:150]!r} at {where}"
    finally:
        signal.alarm(0)
    return _READ, ""


def _alarm(number: int, frame: object) -> None:
    raise _HangError


def _place(frames: traceback.StackSummary) -> str:
    """The last line of the package, and the last of all."""
    own = [frame for frame in frames if "clippy_cli" in frame.filename]
    shown = (own[-1:] or frames[-1:]) + frames[-1:]
    return " <- ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in shown)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
