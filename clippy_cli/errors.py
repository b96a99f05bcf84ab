"""The one exception for everything that can be expected to go wrong."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns. Click keeps 2 for wrong usage; 75 is the system's "try again"; 130 is 128 + SIGINT."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    PREEMPTED = 75
    INTERRUPTED = 130


class ClippyError(Exception):
    """An expected failure: what happened, where, and what to do next.

    Args:
        message: what happened, what was looked for and what is there instead.
        hint: the command or change to try next, printed on its own line.
        exit_code: the process's exit status, see :class:`ExitCode`.
    """

    def __init__(self, message: str, hint: str | None = None, exit_code: int = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = int(exit_code)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
