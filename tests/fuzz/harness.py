"""Reads of damaged files in child processes with limits: no traceback, no hang, no more memory than is reasonable."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

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


class _HangError(BaseException):
    pass


def fuzz(kinds: Mapping[str, Kind], count: int, *, first: int = 0, timeout: float = KILLED_AFTER) -> list[Failure]:
    """Damage ``count`` files of each kind, by the seeds from ``first`` on."""
    failures: list[Failure] = []
    for name, kind in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole"
            whole.mkdir()
            kind.make(whole)
            kind.read(whole)  # as it is it must be readable
            failures += _fuzz_kind(name, kind, whole, range(first, first + count), timeout)
    return failures


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


def _fuzz_kind(name: str, kind: Kind, whole: Path, seeds: range, timeout: float) -> Iterator[Failure]:
    context = multiprocessing.get_context("fork")
    left = list(seeds)
    while left:
        here, there = context.Pipe()
        child = context.Process(target=_child, args=(kind, whole, left[:_FILES_A_CHILD], there))
        child.start()
        there.close()
        yield from _collect(name, child, here, left, timeout)
        child.kill()
        child.join()


def _collect(name: str, child: Any, results: Connection, left: list[int], timeout: float) -> Iterator[Failure]:
    """Failures of one child's files, which are taken from ``left``; one that takes the child along is one, too."""
    for _ in range(min(_FILES_A_CHILD, len(left))):
        try:
            what = results.recv() if results.poll(timeout) else f"did not answer within {timeout:g} s"
        except EOFError:
            child.join()
            what = f"the process ended with {child.exitcode}"
            yield Failure(name, left.pop(0), what)
            return
        seed = left.pop(0)
        if what:
            yield Failure(name, seed, what)
        if what.startswith("did not answer"):
            return


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


def _outcome(kind: Kind, target: Path) -> str:
    """What is wrong with how the damaged file was read; empty where nothing is."""
    signal.alarm(SECONDS)
    try:
        kind.read(target)
    except ClippyError as error:
        return "" if error.message.strip() else "an error without a message"
    except _HangError:
        return f"took longer than {SECONDS} s: {_place(traceback.extract_stack())}"
    except BaseException as error:  # a panic of a library in Rust is no Exception
        return f"{type(error).__name__}: {str(error)[:150]!r} at {_place(traceback.extract_tb(error.__traceback__))}"
    finally:
        signal.alarm(0)
    return ""


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
