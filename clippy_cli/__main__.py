"""``python -m clippy_cli``, which is what torchrun launches, and the ``clippy`` command."""

import os

from clippy_cli.app import app
from clippy_cli.console import adopt_libraries


def main() -> None:
    """Run the command line and leave with its exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost process leaves C++ stack traces behind
    adopt_libraries(os.environ)
    app(prog_name="clippy")


if __name__ == "__main__":
    main()
