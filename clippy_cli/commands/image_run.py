"""What segment, group and classify share: named files in, results printed as they come, one exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from clippy_cli import console
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.model.choices import AUTO
from clippy_cli.notices import Notice, Notices, printable
from clippy_cli.stages import LOAD_MODEL, stage

if TYPE_CHECKING:
    from clippy_cli.api import Clip
    from clippy_cli.inference.requests import ClassifyRequest, SegmentRequest
    from clippy_cli.model.base import VisionLanguageModel
    from clippy_cli.reporting.answers import Answer

MOST_TABLES = 3  # up to this many images get a table each, more get a line each

Record = dict[str, Any]


class Answered(Protocol):
    """The result of one photo."""

    @property
    def notices(self) -> tuple[Notice, ...]: ...


R = TypeVar("R", bound=Answered)


@dataclass(frozen=True)
class ImageInput:
    """The files that are to be done, and what was found beside them; with ``strict`` nothing may be noted."""

    paths: list[Path]
    notices: Notices
    strict: bool = False


@dataclass
class ImageRun:
    """Records of the images that were done and of those that failed, in the order of the files, and all notices."""

    notices: Notices
    done: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)

    def finish(self) -> None:
        """Print the notices, and leave with the exit code where files failed or were skipped; else return."""
        console.print_notices(self.notices)
        if self.failed and not self.done:
            raise typer.Exit(ExitCode.FAILED)
        if self.failed or self.notices.incomplete:
            raise typer.Exit(ExitCode.PARTIAL)


def input_files(inputs: Sequence[str], out: Path | None = None, *, strict: bool = False) -> ImageInput:
    """The files behind the arguments, without pictures that clippy wrote, to ``out`` or elsewhere, unless named.

    ClippyError with ``strict`` where something beside them would be skipped.
    """
    from clippy_cli.data.image_files import find_images

    notices = Notices()
    paths = find_images(inputs, notices=notices)
    named, folder = {Path(text) for text in inputs}, None if out is None else out.resolve()
    own = {path: results for path in paths if path not in named and (results := _results_with(path)) is not None}
    for path, results in own.items():
        where = "in the folder of --out" if results.resolve() == folder else "of an earlier run"
        notices.ignored("file", f"clippy's own results, {where}", str(path))
    paths = [path for path in paths if path not in own]
    if not paths:
        raise ClippyError(
            f"No image found in: {', '.join(inputs)}, but for {len(own)} of clippy's own results",
            "Name them to use them.",
        )
    if strict:
        notices.refuse("The input")
    return ImageInput(paths, notices, strict)


def _results_with(path: Path) -> Path | None:
    """The folder of results, at or above a file, that clippy wrote the file into; None where it is no such file."""
    from clippy_cli.own_files import MANIFEST, own_files

    for folder in path.parents:
        if (folder / MANIFEST).is_file() and own_files(folder).is_own(path):
            return folder
    return None


def load_clip(
    source: str,
    device: str,
    *,
    dense: str | None = None,
    proxy: str | None = None,
    positions: str | None = None,
    texts: bool = False,
    precision: str = AUTO,
    compiled: bool = False,
    cache: bool = True,
) -> Clip:
    """Load a model while a spinner says so; with ``texts``, ClippyError before that where it cannot read any."""
    with console.status(f"loading {source}"), stage(LOAD_MODEL):
        from clippy_cli import api

        return api.load(
            source,
            device=device,
            dense=dense,
            proxy=proxy,
            positions=positions,
            texts=texts,
            precision=precision,
            compile=compiled,
            cache=cache,
        )


def prepare(clip: Clip, request: SegmentRequest | ClassifyRequest) -> Answer[Any]:
    """The request's texts, embedded while a spinner says so, or a bar where that takes long.

    The text tower is not wanted any more afterwards, and its memory is given back.
    """
    from clippy_cli.model.clippy import Clippy

    with console.counted_status("embedding texts", unit="texts") as count:
        answer = clip.prepare(request, count)
    if isinstance(clip.model, Clippy):
        clip.model.let_go_of_texts()
    return answer


def load_bare_model(
    source: str, device: str, *, dense: str | None = None, proxy: str | None = None, texts: bool = False
) -> VisionLanguageModel:
    """As :func:`load_clip`, the model alone."""
    return load_clip(source, device, dense=dense, proxy=proxy, texts=texts).model


def collect(
    clip: Clip,
    answer: Answer[R],
    images: ImageInput,
    verb: str,
    record: Callable[[R, str], Record],
    *,
    batch_size: int,
    regions: Path | None = None,
) -> ImageRun:
    """Turn the result of each photo, with a file name stem of its own, into its record, several at a time.

    A file that cannot be used is reported at once and the others go on. Errors of ``record``, such as a full disk, end
    the run; so does, with ``strict``, a photo that is used under an assumption.
    """
    from clippy_cli.reporting.answers import Failure, answer_all
    from clippy_cli.reporting.files import output_stems

    run, paths = ImageRun(images.notices), images.paths
    stems = output_stems(paths)

    def finish(result: R, place: int) -> tuple[Record, tuple[Notice, ...]]:
        if images.strict:
            Notices(result.notices).refuse(f"{paths[place]}")
        return record(result, stems[place]), result.notices

    results = answer_all(clip.model, answer, paths, finish, regions=regions, batch_size=batch_size)
    with console.progress(verb, len(paths)) as advance:
        for result, path in zip(results, paths, strict=True):
            shown = printable(str(path))
            if isinstance(result, Failure):
                console.print_error(result.error)
                run.failed.append({"image": shown, "error": result.error.message, "hint": result.error.hint})
            else:
                fields, notices = result
                run.notices.update(notices)
                run.done.append({"image": shown, **fields})
            advance()
    return run
