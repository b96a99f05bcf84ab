"""``python -m clippy_cli``, which is what torchrun launches, and the ``clippy`` command."""

from clippy_cli.app import app


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="clippy")


if __name__ == "__main__":
    main()
