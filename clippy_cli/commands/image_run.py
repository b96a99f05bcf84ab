"""What segment, group and classify share: named files in, results printed as they come, one exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from clippy_cli import console
from clippy_cli.errors import ExitCode

if TYPE_CHECKING:
    from clippy_cli.api import Clip
    from clippy_cli.model.base import VisionLanguageModel
    from clippy_cli.reporting.answers import Failure

MOST_TABLES = 3  # up to this many images get a table each, more get a line each

Record = dict[str, Any]
R = TypeVar("R")


@dataclass
class ImageRun:
    """Records of the images that were done and of those that failed, in the order of the files."""

    done: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)

    def finish(self) -> None:
        """Leave with the exit code for a run in which some or all files failed; return where none did."""
        if self.failed:
            raise typer.Exit(ExitCode.PARTIAL if self.done else ExitCode.FAILED)


def input_files(inputs: Sequence[str], out: Path | None = None) -> list[Path]:
    """The files behind the arguments, without the pictures that clippy wrote to ``out``, unless named."""
    from clippy_cli.data.images import find_images
    from clippy_cli.own_files import own_files

    paths = find_images(inputs)
    if out is None:
        return paths
    own, folder, named = own_files(out), out.resolve(), {Path(text) for text in inputs}
    return [path for path in paths if path in named or path.parent.resolve() != folder or not own.is_own(path)]


def load_clip(
    source: str,
    device: str,
    *,
    dense: str | None = None,
    proxy: str | None = None,
    positions: str | None = None,
    texts: bool = False,
) -> Clip:
    """Load a model while a spinner says so; with ``texts``, ClippyError before that where it cannot read any."""
    with console.status(f"loading {source}"):
        from clippy_cli import api

        return api.load(source, device=device, dense=dense, proxy=proxy, positions=positions, texts=texts)


def load_bare_model(
    source: str, device: str, *, dense: str | None = None, proxy: str | None = None, texts: bool = False
) -> VisionLanguageModel:
    """As :func:`load_clip`, the model alone."""
    return load_clip(source, device, dense=dense, proxy=proxy, texts=texts).model


def collect(
    results: Iterable[R | Failure], paths: Sequence[Path], verb: str, record: Callable[[R, str], Record]
) -> ImageRun:
    """Turn each result, with a file name stem of its own, into its record.

    A file that cannot be used is reported at once and the others go on. Errors of ``record``, such as a full disk, end
    the run.
    """
    from clippy_cli.reporting.answers import Failure
    from clippy_cli.reporting.files import output_stems

    run = ImageRun()
    with console.progress(verb, len(paths)) as advance:
        for result, stem, path in zip(results, output_stems(paths), paths, strict=True):
            if isinstance(result, Failure):
                console.print_error(result.error)
                run.failed.append({"image": str(path), "error": result.error.message, "hint": result.error.hint})
            else:
                run.done.append({"image": str(path), **record(result, stem)})
            advance()
    return run
