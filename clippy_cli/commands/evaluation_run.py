"""One ``clippy evaluate``: all sets with one model after the other, what is shown meanwhile and left behind."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands.image_run import load_model
from clippy_cli.errors import ExitCode

if TYPE_CHECKING:
    from clippy_cli.data.benchmarks.base import ImageSet
    from clippy_cli.evaluation.evaluate import Evaluated
    from clippy_cli.evaluation.protocol import Overrides, Protocol
    from clippy_cli.evaluation.result import Document, Task, TaskResult
    from clippy_cli.evaluation.run import Options, Progress
    from clippy_cli.model.base import VisionLanguageModel
    from clippy_cli.processes import Processes
    from clippy_cli.reporting.evaluation.report import Example


def open_sets(names: Sequence[str], data_root: Path | None, download: bool, processes: Processes) -> list[ImageSet]:
    """The named sets, missing ones fetched first where that is wanted; the first process fetches, the others wait."""
    from clippy_cli.data.benchmarks import catalogue, open_benchmark
    from clippy_cli.data.benchmarks.base import data_root as find_root

    if download and processes.first:
        root = find_root(data_root)
        for name in names:
            known = name in catalogue.benchmark_names() and name != catalogue.SCENES
            if known and all(catalogue.locate(spec, root) is None for spec in catalogue.layouts(name)):
                with console.status(f"downloading {name} into {root}"):
                    catalogue.download(name, root)
    processes.gather(None)  # the others wait for the download
    with console.status("looking for data sets"):
        return [open_benchmark(name, data_root) for name in dict.fromkeys(names)]


class EvaluationRun:
    """All sets with one model after the other, and what they leave behind."""

    def __init__(
        self,
        jobs: Sequence[tuple[ImageSet, tuple[Task, ...]]],
        protocol: Protocol,
        overrides: Overrides,
        settings: Options,
        out: Path,
        processes: Processes,
        *,
        json: bool,
        worst_first: bool,
    ) -> None:
        self._jobs, self._protocol, self._overrides = jobs, protocol, overrides
        self._settings, self._out, self._processes = settings, out, processes
        self._json, self._worst_first = json, worst_first
        self._evaluations: list[Evaluated] = []
        self._examples: list[list[Example]] = []
        self._device = ""

    def model(self, source: str, device: str, *, dense: str | None = None, proxy: str | None = None) -> None:
        """Measure one model on every set, printing each result as it comes."""
        from clippy_cli.evaluation.provenance import describe_device
        from clippy_cli.model.patch_forms import with_patch_form

        clip = load_model(source, device, dense=dense, proxy=proxy)
        if self._overrides.patches is not None:
            clip = with_patch_form(clip, self._overrides.patches)
        self._device = describe_device(clip.device)
        for images, tasks in self._jobs:
            self._evaluations.append(self._set(clip, source, images, tasks))

    def finish(self, *, unfinished: bool = False) -> None:
        """Write the files of what was measured, and show results side by side.

        Where the run is ``unfinished``, since something failed later, what was counted stays noted for the next try.
        """
        if not self._processes.first or not self._evaluations:
            return
        from clippy_cli.commands.evaluation_tables import print_summary
        from clippy_cli.reporting.evaluation.files import remove_journals, save_document, save_images

        results = save_images(self._out, self._evaluations)
        document = self._document(results)
        written = save_document(self._out, document, self._examples)
        if not unfinished:
            remove_journals(self._out, self._evaluations)
        if self._json:
            console.print_json(document.model_dump(by_alias=True))
            return
        if len(results) > 1:
            print_summary(document)
        console.out.print(Text(f"wrote {', '.join(map(str, written))}", "dim"), soft_wrap=True)

    def leave(self) -> None:
        """Leave with the exit code for images that could not be used; return where there are none."""
        data = [result.data for evaluated in self._evaluations for result in evaluated.results]
        if any(entry.failed for entry in data):
            raise typer.Exit(ExitCode.PARTIAL if any(entry.images for entry in data) else ExitCode.FAILED)

    def _set(self, clip: VisionLanguageModel, source: str, images: ImageSet, tasks: tuple[Task, ...]) -> Evaluated:
        from clippy_cli.commands.evaluation_tables import print_result
        from clippy_cli.evaluation.evaluate import evaluate_set
        from clippy_cli.reporting.evaluation.examples import draw_examples
        from clippy_cli.reporting.evaluation.files import JOURNALS

        with _shown_progress(images.info.name) as progress:
            evaluated = evaluate_set(
                clip,
                images,
                self._protocol,
                tasks=tasks,
                source=source,
                overrides=self._overrides,
                options=self._settings,
                journals=self._out / JOURNALS,
                processes=self._processes,
                progress=progress,
            )
        if self._processes.first:
            self._examples += draw_examples(clip, evaluated, self._settings)
            if not self._json:
                for result in evaluated.results:
                    print_result(result, worst_first=self._worst_first)
                    console.out.print()
        return evaluated

    def _document(self, results: tuple[TaskResult, ...]) -> Document:
        from datetime import UTC, datetime

        from clippy_cli.evaluation.provenance import library_versions
        from clippy_cli.evaluation.result import Document

        return Document(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=shlex.join(["clippy", *sys.argv[1:]]),
            device=self._device,
            versions=library_versions(),
            seed=self._settings.seed,
            results=results,
        )


@contextmanager
def _shown_progress(name: str) -> Iterator[Progress]:
    """A spinner until it is known how many images are left, then a bar; and a word where some were counted before."""
    from clippy_cli.evaluation.run import Progress

    with ExitStack() as stack, ExitStack() as preparation:
        preparation.enter_context(console.status(f"{name}: embedding texts"))
        count: Callable[[], None] = lambda: None  # noqa: E731

        def start(before: int, left: int) -> None:
            nonlocal count
            preparation.close()
            if before:
                console.err.print(f"{name}: {before} of {before + left} images were counted before", soft_wrap=True)
            count = stack.enter_context(console.progress(f"evaluating {name}", left, unit="images"))

        yield Progress(start, lambda: count())
