"""The code bases of a measurement: commands in fresh processes, and a process that stays and is asked again."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

STOPWATCH = Path(__file__).with_name("stopwatch.py")
ASKED = Path(__file__).with_name("asked.py")
CLOCK = "INFERENCE_SPEED_CLOCK"  # what tells asked.py
_NUMBERS = itertools.count()

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One command: ``seconds`` by the clock, wall seconds to the ``first`` byte on a terminal, ``peak`` bytes, log."""

    seconds: float
    first: float | None
    peak: int
    log: Path


@dataclass(frozen=True)
class Code:
    """One code base.

    Attributes:
        name: before or today.
        folder: what holds its ``clippy_cli``.
        work: the current folder of its commands, which holds what they write.
        clock: wall; or cpu, the CPU time of all threads, where others use the machine at the same time.
    """

    name: str
    folder: Path
    work: Path
    clock: str = "wall"

    @cached_property
    def revision(self) -> str:
        """Its commit, and whether files differed from it when this was first read."""
        commit = self._git("rev-parse", "--short", "HEAD")
        changed = " with uncommitted changes" if commit and self._git("status", "--porcelain") else ""
        return (commit or "unknown revision") + changed

    def environment(self, cache: Path | None = None) -> dict[str, str]:
        """Of its processes: nothing is kept outside ``cache``, by default one folder for the whole measurement."""
        kept = str(cache or self.work / "cache")
        return {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(self.folder),
            "CLIPPY_CACHE": kept,
            "XDG_CACHE_HOME": kept,
            "HF_HUB_OFFLINE": "1",
            "TERM": "xterm-256color",
            CLOCK: self.clock,
        }

    def prepare(self) -> None:
        """Compile its modules; SystemExit where Python would import another copy of the package."""
        self.work.mkdir()
        self.python(["-m", "compileall", "-q", str(self.folder / "clippy_cli")])
        found = self.python(["-c", "import clippy_cli; print(clippy_cli.__file__)"]).log.read_text().strip()
        if not found.startswith(str(self.folder)):
            raise SystemExit(f"{self.name}: {sys.executable} imports {found}, not the copy in {self.folder}")

    def python(self, arguments: Sequence[str], *, terminal: bool = False, cache: Path | None = None) -> Run:
        """Time ``python ARGUMENTS`` in a fresh process; SystemExit with its last lines where it fails."""
        log = self.work / f"log-{next(_NUMBERS)}.txt"
        order = {
            "command": [sys.executable, *arguments],
            "cwd": str(self.work),
            "log": str(log),
            "terminal": terminal,
        }
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(STOPWATCH)],
            input=json.dumps(order),
            stdout=subprocess.PIPE,
            env=self.environment(cache),
            text=True,
            check=True,
        )
        measured = json.loads(done.stdout)
        if code := measured.pop("code"):
            words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise SystemExit(f"{self.name}: python {' '.join(arguments)[:400]}: exit code {code}\n{words}")
        cpu = measured.pop("cpu")
        seconds = cpu if self.clock == "cpu" else measured["seconds"]
        return Run(seconds, measured["first"], measured["peak"], log)

    def clippy(self, arguments: Sequence[str], *, terminal: bool = False, cache: Path | None = None) -> Run:
        """As :meth:`python`, of ``clippy ARGUMENTS``."""
        return self.python(["-m", "clippy_cli", *arguments], terminal=terminal, cache=cache)

    def new(self, name: str) -> Path:
        """A path in its work folder where nothing is yet."""
        return self.work / f"{name}-{next(_NUMBERS)}"

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if not done.returncode else ""


class Asked:
    """A process that runs ``asked.py`` with one code base: it has imported and loaded what it needs, and waits."""

    def __init__(self, code: Code, cache: Path | None = None) -> None:
        self._code = code
        self._process = subprocess.Popen(
            [sys.executable, str(ASKED)],
            cwd=code.work,
            env=code.environment(cache),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, name: str, **arguments: Any) -> Any:
        """The answer to an order of ``asked.py``; SystemExit where it fails, which has printed why."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"name": name, **arguments}, default=str) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._code.name}: {name} failed with exit code {self._process.wait()}")
        return json.loads(answer)

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def in_turn(rounds: int, sides: Mapping[Any, Callable[[], T]]) -> dict[Any, list[T]]:
    """The values of each side, one a round: in their order, then backward, and so on, so that drift meets all alike."""
    values: dict[Any, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            values[name].append(sides[name]())
    return values
