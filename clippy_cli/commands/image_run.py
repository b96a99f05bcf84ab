"""What segment, group and classify share: the way from the named files to one record each, whatever is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clippy_cli import console
from clippy_cli.errors import ExitCode

if TYPE_CHECKING:
    from clippy_cli.inference.features import Encode, Encoded, ImageFile
    from clippy_cli.model.base import VisionLanguageModel

MOST_TABLES = 3  # up to this many images get a table each, more get a line each
_OWN_ENDINGS = ("_overlay.png", "_mask.png", "_pca.png")

Record = dict[str, Any]


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
    """The files behind the arguments, without the pictures that an earlier run wrote to ``out``, unless named."""
    from clippy_cli.data.images import find_images

    paths = find_images(inputs)
    if out is None:
        return paths
    folder, named = out.resolve(), {Path(text) for text in inputs}
    return [
        path
        for path in paths
        if path in named or path.parent.resolve() != folder or not path.name.endswith(_OWN_ENDINGS)
    ]


def load_model(
    source: str, device: str, *, dense: str | None = None, proxy: str | None = None, texts: bool = False
) -> VisionLanguageModel:
    """Load a model while a spinner says so; with ``texts``, ClippyError before that where it cannot read any."""
    from clippy_cli.model.sources import loading

    with console.status(f"loading {source}"):
        if texts:
            loading.check_source(source, texts=True)
        return loading.load_model(source, device=device, dense=dense, proxy=proxy)


def run_images(
    paths: Sequence[Path],
    encode: Encode,
    handle: Callable[[Encoded[ImageFile], str], Record],
    *,
    verb: str,
    patch_size: int,
    resolution: int,
    batch_size: int,
    read: Callable[[Path], ImageFile] | None = None,
) -> ImageRun:
    """Encode every file and hand each result, with a file name stem of its own, to ``handle``.

    Files are decoded by ``read``, or as plain photos. One that cannot be used is reported at once and the others go on.
    Errors of ``handle``, such as a full disk, end the run.
    """
    from clippy_cli.inference.features import Failed, encode_images, read_file
    from clippy_cli.reporting.files import output_stems

    run = ImageRun()
    results = encode_images(
        paths, read or read_file, encode, patch_size=patch_size, resolution=resolution, batch_size=batch_size
    )
    with console.progress(verb, len(paths)) as advance:
        for result, stem in zip(results, output_stems(paths), strict=True):
            if isinstance(result, Failed):
                console.print_error(result.error)
                run.failed.append({"image": str(result.key), "error": result.error.message, "hint": result.error.hint})
            else:
                run.done.append({"image": result.sample.key, **handle(result, stem)})
            advance()
    return run
