"""A folder that appears whole or not at all, and never over another."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clippy_cli.errors import ClippyError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside ``out`` that is renamed to it when the block ends without an error, else removed.

    ClippyError where ``out`` holds something already, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ClippyError(
            f"{out} exists and is {'not empty' if out.is_dir() else 'no folder'}.", "Name a new or an empty folder."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            yield staging
            staging.chmod(0o755)
            staging.replace(out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ClippyError(f"Cannot write to {out}: {error}", "Free some space, or choose another folder.") from error


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below ``folder``, by its path relative to it."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
