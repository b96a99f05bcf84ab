"""``python -m clippy_cli``, which is what torchrun launches, and the ``clippy`` command."""

import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from clippy_cli.console import adopt_libraries, say_at_once

_ON_PHOTOS = frozenset({"segment", "group", "classify", "embed"})
_SLOW = _ON_PHOTOS | {"train", "evaluate", "demo", "import", "export", "waterbirds"}


def main() -> None:
    """Run the command line and leave with its exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost process leaves C++ stack traces behind
    command = _command(sys.argv[1:])
    if command in _SLOW and os.environ.get("RANK", "0") == "0":
        say_at_once("loading libraries")
    if command in _SLOW - {"train"} and "OMP_WAIT_POLICY" not in os.environ:
        # Threads that wait for each other spin: on processors that others use, too, for longer than they compute.
        os.environ.setdefault("GOMP_SPINCOUNT", "100")
    codes: list[int] = []
    if command in _ON_PHOTOS:
        atexit.register(_leave_at_once, codes)  # before all others, so that it is called after them
    from clippy_cli.app import app

    adopt_libraries(os.environ)
    try:
        app(prog_name="clippy")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            codes.append(leaving.code or 0)
        raise


def _command(arguments: Sequence[str]) -> str | None:
    """The command of a command line; None where only its help is asked for."""
    if {"-h", "--help"}.intersection(arguments):
        return None
    return next((word for word in arguments if not word.startswith("-")), None)


def _leave_at_once(codes: Sequence[int]) -> None:
    """End a process that is done, before torch is taken down, which takes half a second and 120 MB."""
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads any more
                stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    main()
