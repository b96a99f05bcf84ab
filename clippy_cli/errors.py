"""The one exception for everything that can be expected to go wrong."""

from __future__ import annotations

import re
from enum import IntEnum

_SURROGATE = re.compile("[\ud800-\udfff]")


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

    >>> error = ClippyError("No label is given", "Write labels as in --labels 'dog|puppy, grass'.")
    >>> error.hint
    "Write labels as in --labels 'dog|puppy, grass'."
    """

    def __init__(self, message: str, hint: str | None = None, exit_code: int = ExitCode.FAILED) -> None:
        self.message = encodable(message)
        self.hint = None if hint is None else encodable(hint)
        super().__init__(self.message)
        self.exit_code = int(exit_code)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


def encodable(text: str) -> str:
    """A text that UTF-8 can hold: the bytes of a file name that are none (surrogates in Python) are written out.

    >>> encodable("caf\\udce9.jpg")
    'caf\\\\xe9.jpg'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(_written_out, text)
    return text


def as_unicode(text: str, what: str) -> str:
    """A text of the command line as it was typed, where Python took its UTF-8 for bytes, as under ``LC_ALL=C``.

    ClippyError, which names ``what`` it is, where it is not UTF-8.

    >>> as_unicode("caf\\udcc3\\udca9", "label")
    'café'
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise ClippyError(
            f"The {what} {text!r} is not UTF-8", "Type it in a terminal whose encoding is UTF-8."
        ) from error


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def refusal(error: OSError) -> str:
    """Why the system refused to write to a place.

    >>> refusal(FileExistsError(17, "File exists"))
    'there is a file where a folder should be'
    """
    if isinstance(error, FileExistsError | NotADirectoryError):  # from mkdir, which minds no folder
        return "there is a file where a folder should be"
    return error.strerror or str(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
