"""``clippy evaluate``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import load_model
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from clippy_cli.data.benchmarks.base import ImageSet
    from clippy_cli.evaluation.evaluate import Evaluated
    from clippy_cli.evaluation.processes import Processes
    from clippy_cli.evaluation.protocol import Overrides, Protocol
    from clippy_cli.evaluation.result import Document, Task, TaskResult
    from clippy_cli.evaluation.run import Options, Progress
    from clippy_cli.model.base import VisionLanguageModel
    from clippy_cli.reporting.evaluation.report import Example

_BATCH = 16
_OUT = Path("clippy_out/evaluate")


def evaluate(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASET...",
            help="Names from --list, a YAML of your own set, a folder of class folders, or captioned tar shards.",
            show_default=False,
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the data sets in their official layouts. Default: $CLIPPY_DATA."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|DIR", help=f"As in the other commands; several side by side. Default: {DEFAULT_MODEL}."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="segment, group, cluster, classify, retrieve. Default: what the set is for, without cluster.",
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(metavar="NAME|YAML", help="clippy, tcl, sclip, or a file of your own.")
    ] = "clippy",
    resolution: options.Resolution = None,
    window: Annotated[
        int | None, typer.Option(min=0, metavar="PIXELS", help="Side of sliding windows; 0: the whole image.")
    ] = None,
    stride: Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Step between windows.")] = None,
    templates: options.Templates = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="words|P|words+P",
            help="What makes a pixel background: words for it, a probability below P, or both.",
        ),
    ] = None,
    patches: Annotated[
        str | None,
        typer.Option(
            metavar="plain|centred",
            help="Patch embeddings as in the paper, or minus the mean of the training patches. Default: the model's.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option(min=1, metavar="N", help="Groups an image, for the task group.")] = 8,
    method: Annotated[str, typer.Option(metavar="pca|kmeans|spectral", help="How images are grouped.")] = "pca",
    clusters: Annotated[
        int | None,
        typer.Option(min=1, max=256, metavar="N", help="Clusters of the set, for the task cluster. Default: classes."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take the first N images only.")] = None,
    batch_size: options.BatchSize = _BATCH,
    workers: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Threads that decode images.")] = 2,
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the task cluster.")] = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for result.json, report.html, report.md and images/.")
    ] = _OUT,
    worst_first: Annotated[bool, typer.Option("--worst-first", help="Sort classes by their figure.")] = False,
    list_sets: Annotated[bool, typer.Option("--list", help="Show every set, found or missing, and leave.")] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the named sets that are missing into --data-root first.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Take two result.json instead of sets, and compare them.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Measure models on benchmarks, and say under which protocol.

    \b
    segment   mIoU, from one confusion matrix over the set
    group     Jaccard: PCA groups of each image against its annotation
    cluster   mIoU of one clustering of the whole set, matched with classes
    classify  top-1, top-5
    retrieve  recall at 1, 5 and 10, both ways

    An interrupted run goes on where it stopped when the same command is given again. Several processes share the work
    when launched by torchrun --nproc-per-node N -m clippy_cli evaluate ...

    \b
    Examples:
      clippy evaluate --list --data-root ~/data
      clippy evaluate voc --resolution 448 --data-root ~/data
      clippy evaluate voc coco ade20k --model runs/a --model runs/b --out ab
      clippy evaluate voc --protocol sclip --task segment
      clippy evaluate my_set.yaml --worst-first
      clippy evaluate --compare a/result.json b/result.json
    """
    if list_sets:
        _list_sets(data_root, json)
        return
    if not datasets:
        raise ClippyError("No data set is named", "Name one, such as voc; clippy evaluate --list shows them all.")
    if compare:
        _compare(datasets, json)
        return
    from clippy_cli.evaluation.processes import launched_processes
    from clippy_cli.evaluation.protocol import Overrides, load_protocol
    from clippy_cli.evaluation.run import Options
    from clippy_cli.evaluation.tasks import parse_tasks, tasks_of_sets
    from clippy_cli.inference.group import METHODS
    from clippy_cli.model.store import find_model
    from clippy_cli.reporting.evaluation.files import prepare_folder

    if method not in METHODS:
        raise ClippyError(f"--method cannot be {method!r}", f"Choose among {', '.join(METHODS)}.")
    tasks = () if task is None else parse_tasks(task)
    rules = load_protocol(protocol)
    overrides = Overrides(resolution, window, stride, templates, background, patches)
    settings = Options(batch_size, workers, groups, method, clusters, limit, seed)
    sources = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    with launched_processes() as processes:
        if not processes.first:
            console.be_silent()
        sets = _open_sets(datasets, data_root, download, processes)
        jobs = list(zip(sets, tasks_of_sets(sets, tasks), strict=True))
        for source in sources:
            find_model(source)
        prepare_folder(out)
        run = _Run(jobs, rules, overrides, settings, out, processes, json=json, worst_first=worst_first)
        try:
            for source in sources:
                run.model(source, processes.device(device))
        except KeyboardInterrupt:
            raise ClippyError(
                "Interrupted.", "The same command goes on from what was counted.", ExitCode.INTERRUPTED
            ) from None
        except ClippyError:
            run.finish(unfinished=True)
            raise
        run.finish()
        processes.gather(None)  # torchrun would end the first process with the others
        if processes.first:
            run.leave()


class _Run:
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

    def model(self, source: str, device: str) -> None:
        """Measure one model on every set, printing each result as it comes."""
        from clippy_cli.evaluation.provenance import describe_device
        from clippy_cli.model.centring import with_centring

        clip = load_model(source, device)
        if self._overrides.patches is not None:
            clip = with_centring(clip, self._overrides.patches)
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


def _open_sets(names: Sequence[str], data_root: Path | None, download: bool, processes: Processes) -> list[ImageSet]:
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


def _list_sets(data_root: Path | None, json: bool) -> None:
    """Every set of the catalogue, and where it is or was looked for."""
    import os

    from clippy_cli.data.benchmarks.base import DATA_VARIABLE
    from clippy_cli.data.benchmarks.base import data_root as find_root
    from clippy_cli.data.benchmarks.catalogue import describe_all

    root = find_root(data_root) if data_root is not None or os.environ.get(DATA_VARIABLE) else None
    statuses = describe_all(root)
    if json:
        records = [
            {
                "name": status.name,
                "title": status.title,
                "kind": status.kind,
                "classes": status.classes,
                "images": status.images,
                "folder": None if status.folder is None else str(status.folder),
                "looked_for": [str(path) for path in status.looked_for],
            }
            for status in statuses
        ]
        console.print_json({"command": "evaluate", "data_root": None if root is None else str(root), "sets": records})
        return
    table = Table("set", "kind", box=None, pad_edge=False)
    table.add_column("classes", justify="right")
    table.add_column("images", justify="right")
    table.add_column("where", overflow="fold")
    for status in statuses:
        found = status.images is not None
        where = "generated" if status.folder is None else _below(root, status.folder)
        tried = [_below(root, path) for path in status.looked_for[:1]]
        fetch = "; --download fetches it" if status.downloadable else ""
        looked = status.problem or f"missing: looked for {''.join(tried)}{fetch}"
        table.add_row(
            Text(status.name, "bold"),
            status.kind,
            str(status.classes or ""),
            f"{status.images:,}" if found else "-",
            Text(where) if found else Text(looked if status.looked_for else "no data folder is named", "dim"),
        )
    if root is not None:
        console.out.print(Text.assemble("data folder ", (str(root), "bold")), soft_wrap=True)
    console.out.print(table)
    if root is None:
        console.print_hint(f"Give --data-root FOLDER, or set {DATA_VARIABLE} to the folder that holds the data sets.")


def _below(root: Path | None, path: Path) -> str:
    return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)


def _compare(files: Sequence[str], json: bool) -> None:
    from dataclasses import asdict

    from clippy_cli.commands.evaluation_compare import print_comparison
    from clippy_cli.evaluation.compare import compare

    if len(files) != 2:
        raise ClippyError(
            f"--compare takes two results, {len(files)} were given",
            "Write clippy evaluate --compare a/result.json b/result.json.",
        )
    with console.status("comparing"):
        comparison = compare(Path(files[0]), Path(files[1]))
    if json:
        import json as serialiser

        console.print_json(
            serialiser.loads(serialiser.dumps({"command": "evaluate", **asdict(comparison)}, default=str))
        )
    else:
        print_comparison(comparison)
