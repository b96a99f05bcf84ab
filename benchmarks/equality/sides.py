"""The two code bases of a comparison, each in a folder of its own, and their command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 1800.0  # seconds for one command
TIMED_OUT = 124
# python -m clippy_cli again and again in one process, which imports torch once: orders come in, exit codes go out.
WORKER = """
import json, os, runpy, sys, traceback
answers = os.fdopen(os.dup(1), "w")
for line in os.fdopen(os.dup(0)):
    order = json.loads(line)
    for number, name in ((1, order["out"]), (2, order["log"])):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.argv, code = ["clippy", *order["arguments"]], 0
    try:
        runpy.run_module("clippy_cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    print(code, file=answers, flush=True)
"""


@dataclass(frozen=True)
class Side:
    """One code base.

    Attributes:
        name: before or after.
        revision: how the result file names it.
        code: the copy of its files; nothing in it changes during a comparison.
        work: the current folder of its commands. Both sides give the same relative paths, so documents can be equal.
        data_root: what ``CLIPPY_DATA`` is set to.
    """

    name: str
    revision: str
    code: Path
    work: Path
    data_root: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands."""
        return {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(self.code),
            "OMP_NUM_THREADS": "1",  # sums in one order, and one side a core
            "COLUMNS": "400",
            "CLIPPY_DATA": str(self.data_root),
        }

    def start(self, arguments: Sequence[str], log: Path, out: Path | None = None) -> subprocess.Popen[bytes]:
        """Start ``python ARGUMENTS``; stderr goes to the file ``log``, stdout to ``out``, else to ``log`` too."""
        with log.open("wb") as errors, (out or log).open("ab" if out is None else "wb") as written:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=self.work, env=self.environment, stdout=written, stderr=errors
            )

    def clippy(self, arguments: Sequence[str], log: Path, out: Path | None = None) -> int:
        """The exit code of ``clippy ARGUMENTS``; TIMED_OUT where it had to be killed."""
        process = self.start(["-m", "clippy_cli", *arguments], log, out)
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return TIMED_OUT

    def check(self) -> None:
        """SystemExit where Python would import another copy of the package than this one."""
        log = self.work / "import.txt"
        code = self.start(["-c", "import clippy_cli; print(clippy_cli.__file__)"], log).wait(PATIENCE)
        found = log.read_text(encoding="utf-8").strip()
        if code or not found.startswith(str(self.code)):
            raise SystemExit(f"{self.name}: {sys.executable} imports {found}, not the copy in {self.code}")


class Worker:
    """One process of a side that runs command after command."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._process: subprocess.Popen[str] | None = None

    def clippy(self, arguments: Sequence[str], log: Path, out: Path) -> int:
        """The exit code of ``clippy ARGUMENTS``; the process's own where the command took it down."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                cwd=self._side.work,
                env=self._side.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"arguments": list(arguments), "log": str(log), "out": str(out)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return int(answer) if answer else self._process.wait() or 1

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def make_side(name: str, source: str, folder: Path, data_root: Path) -> Side:
    """Copy a revision, or a working tree with its uncommitted files, below ``folder``."""
    code, work = folder / f"{name}-code", folder / f"{name}-work"
    code.mkdir()
    work.mkdir()
    if Path(source).is_dir():
        revision = _copy_tree(Path(source).resolve(), code)
    else:
        archive = _git(REPOSITORY, "archive", source)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(code, filter="data")
        revision = _git(REPOSITORY, "rev-parse", "--short", source).decode().strip()
    side = Side(name, revision, code, work, data_root.resolve())
    side.check()
    return side


def last_words(log: Path) -> str:
    """The last line that a command wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "nothing was said"


def _copy_tree(tree: Path, code: Path) -> str:
    """Copy what git would commit; the commit, and whether anything differs from it."""
    for name in _git(tree, "ls-files", "-coz", "--exclude-standard").decode().split("\0"):
        if name and (tree / name).is_file():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, code / name)
    changed = " with uncommitted changes" if _git(tree, "status", "--porcelain").strip() else ""
    return _git(tree, "rev-parse", "--short", "HEAD").decode().strip() + changed


def _git(folder: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode(errors="replace").strip())
    return done.stdout
