"""The folder that a command's results go into: its own, held while it works, nobody's files replaced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clippy_cli.files import prepare_folder
from clippy_cli.locks import FolderInUseError, hold_folder
from clippy_cli.own_files import replacing_own


@contextmanager
def results_folder(
    named: Path | None,
    default: Path,
    files: Sequence[str],
    *,
    work: str,
    overwrite: bool = False,
    continues: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[Path]:
    """Give the folder of one command's results, which no other process may write to while the block runs.

    Args:
        named: what --out says; None takes ``default``, or ``default-2`` and so on where that holds earlier results or
            is in use.
        default: where results go without --out.
        files: what will be written there, folders with a ``/`` behind, so that what is in the way is named before any
            work.
        work: the command, for who else wants the folder.
        overwrite: replace files that clippy did not write.
        continues: whether a folder holds what the same command has left unfinished; it is then continued there.

    Raises:
        ClippyError: the folder is in use or cannot be written to; files are in the way that clippy did not write.
    """
    with ExitStack() as stack:
        if named is not None:
            stack.enter_context(hold_folder(named, work))
            out = named
        else:
            out = next(folder for folder in numbered(default) if _take(folder, work, continues, stack))
        prepare_folder(out)
        own = stack.enter_context(replacing_own(out, overwrite=overwrite))
        if not overwrite:
            own.check(out / name for name in files if not (name.endswith("/") and (out / name).is_dir()))
        yield out


def _take(folder: Path, work: str, continues: Callable[[Path], bool], stack: ExitStack) -> bool:
    """Hold ``folder`` until ``stack`` closes, unless it holds results of something else, or is in use by that."""
    if not continues(folder) and _is_used(folder):
        return False
    with ExitStack() as holding:
        try:
            holding.enter_context(hold_folder(folder, work))
        except FolderInUseError:
            if continues(folder):  # the same command runs already
                raise
            return False
        if not continues(folder) and _is_used(folder):  # by who held it until now
            return False
        stack.enter_context(holding.pop_all())
    return True


def _is_used(folder: Path) -> bool:
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def numbered(default: Path) -> Iterator[Path]:
    """``evaluate``, ``evaluate-2``, ``evaluate-3`` and so on."""
    yield default
    for number in itertools.count(2):
        yield default.with_name(f"{default.name}-{number}")
