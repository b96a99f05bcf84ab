"""``clippy evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.evaluation_list import list_sets
from clippy_cli.commands.evaluation_run import EvaluationRun, open_sets
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.model import DEFAULT_MODEL

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
    model: options.Models = None,
    dense: options.Dense = None,
    proxy: options.Proxy = None,
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
    resolution: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Short side that images are resized to; aspect is kept. Default: the protocol's.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="PIXELS", help="Side of sliding windows; 0: the whole image. Default: the protocol's."
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Step between windows. Default: the protocol's.")
    ] = None,
    scales: options.Scales = None,
    flip: options.Flip = None,
    refine: options.Refine = None,
    regions: options.RegionFolder = None,
    templates: Annotated[
        str | None,
        typer.Option(
            metavar="SET|TEXT",
            help="Prompts around each class: none, photo, simple, openai, or your own. Default: the protocol's.",
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="words|P|words+P",
            help="What makes a pixel background: words for it, a probability below P, or both. "
            "Default: the protocol's.",
        ),
    ] = None,
    patches: Annotated[
        str | None,
        typer.Option(
            metavar="plain|centred|shared",
            help="Patch embeddings as in the paper, or minus the mean of the training patches, or shared among patches "
            "that look alike to the trunk. Default: the model's.",
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
    workers: options.Workers = 2,
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the task cluster.")] = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for result.json, report.html, report.md and images/.")
    ] = _OUT,
    worst_first: Annotated[bool, typer.Option("--worst-first", help="Sort classes by their figure.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show every set, found or missing, and leave.")] = False,
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
      clippy evaluate voc --scales 1,1.5 --flip --refine guided
      clippy evaluate --compare a/result.json b/result.json
    """
    if list_all:
        list_sets(data_root, json)
        return
    if not datasets:
        raise ClippyError("No data set is named", "Name one, such as voc; clippy evaluate --list shows them all.")
    if compare:
        _compare(datasets, json)
        return
    from clippy_cli.evaluation.protocol import Overrides, load_protocol
    from clippy_cli.evaluation.run import Options
    from clippy_cli.evaluation.tasks import WORDED, parse_tasks, tasks_of_sets
    from clippy_cli.files import prepare_folder
    from clippy_cli.inference.group import METHODS
    from clippy_cli.inference.refine.refinement import parse_refinement
    from clippy_cli.inference.views import parse_scales
    from clippy_cli.model.sources.loading import check_source
    from clippy_cli.processes import launched_processes

    if method not in METHODS:
        raise ClippyError(f"--method cannot be {method!r}", f"Choose among {', '.join(METHODS)}.")
    tasks = () if task is None else parse_tasks(task)
    rules = load_protocol(protocol)
    factors = None if scales is None else parse_scales(scales)
    if refine is not None:
        parse_refinement(refine)
    if regions is not None:
        options.check_folder(regions, "--regions")
    overrides = Overrides(resolution, window, stride, templates, background, patches, factors, flip, refine)
    settings = Options(batch_size, workers, groups, method, clusters, limit, seed, regions)
    sources = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    with launched_processes() as processes:
        if not processes.first:
            console.be_silent()
        sets = open_sets(datasets, data_root, download, processes)
        jobs = list(zip(sets, tasks_of_sets(sets, tasks), strict=True))
        worded = any(name in WORDED for _, chosen in jobs for name in chosen)
        for source in sources:
            check_source(source, texts=worded, dense=dense, proxy=proxy)
        prepare_folder(out)
        run = EvaluationRun(jobs, rules, overrides, settings, out, processes, json=json, worst_first=worst_first)
        try:
            for source in sources:
                run.model(source, processes.device(device), dense=dense, proxy=proxy)
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
