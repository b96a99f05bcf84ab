"""``python -m clippy_cli``, which is what torchrun launches, and the ``clippy`` command."""

import os
import sys
from collections.abc import Sequence

from clippy_cli.console import adopt_libraries, say_at_once

_SLOW = frozenset({"segment", "group", "classify", "train", "evaluate", "demo", "import", "export", "waterbirds"})


def main() -> None:
    """Run the command line and leave with its exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost process leaves C++ stack traces behind
    if _loads_libraries(sys.argv[1:]) and os.environ.get("RANK", "0") == "0":
        say_at_once("loading libraries")
    from clippy_cli.app import app

    adopt_libraries(os.environ)
    app(prog_name="clippy")


def _loads_libraries(arguments: Sequence[str]) -> bool:
    """Whether a command line leads to torch, which takes seconds to import."""
    command = next((word for word in arguments if not word.startswith("-")), None)
    return command in _SLOW and not {"-h", "--help"}.intersection(arguments)


if __name__ == "__main__":
    main()
