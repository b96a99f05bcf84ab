"""``clippy evaluate``."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.compare import compare as compare_results
from clippy_cli.commands.evaluation_run import EvaluationRun
from clippy_cli.commands.profile_table import profiling
from clippy_cli.commands.results_folder import results_folder
from clippy_cli.commands.sets import fetch_missing, list_sets
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.evaluation.tasks import Task, parse_tasks
from clippy_cli.inference.choices import WindowAverage
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO, PatchForm

_BATCH = 16
_OUT = Path("clippy_out/evaluate")


@options.in_panels(
    Data=("data_root", "suite", "limit", "exif", "strict"),
    Models=("model", "dense", "proxy", "patches", "positions", "pool_prefix"),
    Protocol=(
        *("protocol", "resolution", "window", "stride", "window_average", "scales", "flip", "refine"),
        *("templates", "background"),
    ),
    Tasks=("task", "regions", "groups", "method", "clusters", "seed"),
    Run=("batch_size", "workers", "device", "precision", "compiled", "no_cache"),
    Output=("out", "overwrite", "worst_first", "json", "profile"),
)
def evaluate(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASET...",
            help="Names of clippy sets, a YAML of your own set, a folder of class folders, or captioned tar shards.",
            show_default=False,
        ),
    ] = None,
    data_root: options.DataRoot = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|YAML",
            help="Sets that papers report together, and their average: ovss8, or a file of your own. Takes no DATASET.",
        ),
    ] = None,
    model: options.Models = None,
    dense: options.Dense = None,
    proxy: options.Proxy = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"{', '.join(Task)}. Default: what the set is for, without cluster.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME|YAML", help="clippy, clippy-notebook, tcl, groupvit, sclip, dinotxt, or a file of your own."
        ),
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
    window_average: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(WindowAverage),
            help="Where overlapping windows are averaged: embeddings on the patch grid, which is quicker, or scores at "
            "pixels. Default: the protocol's.",
        ),
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
            metavar="|".join(PatchForm),
            help="Patch embeddings as in the paper, or minus the mean of the training patches, or shared among patches "
            "that look alike to the trunk. Default: the model's.",
        ),
    ] = None,
    positions: options.Positions = None,
    pool_prefix: Annotated[
        bool | None,
        typer.Option(
            "--pool-prefix/--no-pool-prefix",
            help="Whether max and avg pooling take in the class token. Default: the model's.",
            show_default=False,
        ),
    ] = None,
    groups: Annotated[int, typer.Option(min=1, metavar="N", help="Groups an image, for the task group.")] = 8,
    method: Annotated[str, typer.Option(metavar="pca|kmeans|spectral", help="How images are grouped.")] = "pca",
    clusters: Annotated[
        int | None,
        typer.Option(min=1, max=256, metavar="N", help="Clusters of the set, for the task cluster. Default: classes."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take the first N images only.")] = None,
    exif: Annotated[
        str | None,
        typer.Option(
            metavar="apply|ignore",
            help="Turn photos by their EXIF orientation, their annotation being upright already, or use both as "
            "stored. Default: as the set says, else as the annotation's size says.",
        ),
    ] = None,
    strict: options.Strict = False,
    batch_size: options.BatchSize = _BATCH,
    workers: options.Workers = 2,
    device: options.Device = "auto",
    precision: options.Precision = AUTO,
    compiled: options.Compiled = False,
    no_cache: options.NoCache = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the task cluster.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=f"Folder for result.json, report.html, report.md and images/. Default: {_OUT}, or {_OUT}-2 and so on "
            "where that holds earlier results.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    worst_first: Annotated[bool, typer.Option("--worst-first", help="Sort classes by their figure.")] = False,
    json: options.Json = False,
    profile: options.Profiled = False,
    list_all: Annotated[bool, typer.Option("--list", hidden=True)] = False,
    download: Annotated[bool, typer.Option("--download", hidden=True)] = False,
    compare: Annotated[bool, typer.Option("--compare", hidden=True)] = False,
) -> None:
    """Measure models on benchmarks, and say under which protocol.

    \b
    segment   mIoU, from one confusion matrix over the set
    group     Jaccard: PCA groups of each image against its annotation
    cluster   mIoU of one clustering of the whole set, matched with classes
    classify  top-1, top-5
    retrieve  recall at 1, 5 and 10, both ways

    An interrupted run continues where it stopped when the same command is given again. Several processes share the work
    when launched by torchrun --nproc-per-node N -m clippy_cli evaluate ...

    \b
    Examples:
      clippy evaluate voc --resolution 448 --data-root ~/data
      clippy evaluate voc coco ade20k --model runs/a --model runs/b --out ab
      clippy evaluate voc --protocol sclip --task segment
      clippy evaluate --suite ovss8 --protocol sclip --model open_clip:ViT-B-16/openai --dense sclip
      clippy evaluate my_set.yaml --worst-first
      clippy evaluate voc --scales 1,1.5 --flip --refine guided

    clippy sets lists the sets, clippy compare compares two results.
    """
    if list_all or compare:
        console.print_hint(
            f"This is clippy {'sets' if list_all else 'compare'} now; the flag goes with the next release."
        )
    if list_all:
        list_sets(data_root, json)
        return
    if suite is not None and (datasets or task):
        also = " ".join(datasets) if datasets else f"--task {task}"
        raise ClippyError(f"--suite names its sets and task, and {also} was given too", "Leave out one of the two.")
    datasets = datasets or []
    if not datasets and suite is None:
        raise ClippyError("No data set is named", "Name one, such as voc; clippy sets lists them all.")
    if compare:
        if len(datasets) != 2:
            raise ClippyError(
                f"--compare takes two results, {len(datasets)} were given",
                "Write clippy compare a/result.json b/result.json.",
            )
        compare_results(Path(datasets[0]), Path(datasets[1]), json)
        return
    from clippy_cli.data.benchmarks.base import Reading, parse_exif_rule
    from clippy_cli.evaluation.evaluate import ModelLoading
    from clippy_cli.evaluation.evaluate import evaluate as evaluate_models
    from clippy_cli.evaluation.protocol import load_protocol
    from clippy_cli.evaluation.settings import Overrides
    from clippy_cli.evaluation.suites import open_suite
    from clippy_cli.evaluation.tasks.base import Options
    from clippy_cli.inference.choices import GroupMethod
    from clippy_cli.inference.refine.refinement import parse_refinement
    from clippy_cli.inference.views import parse_scales
    from clippy_cli.model.precision import check_precision
    from clippy_cli.processes import launched_processes
    from clippy_cli.reporting.evaluation.files import FILES, is_unfinished

    if method not in list(GroupMethod):
        raise ClippyError(f"--method cannot be {method!r}", f"Choose among {', '.join(GroupMethod)}.")
    tasks = () if task is None else parse_tasks(task)
    rules = load_protocol(protocol)
    factors = None if scales is None else parse_scales(scales)
    if refine is not None:
        parse_refinement(refine)
    reading = Reading(parse_exif_rule(exif), strict)
    if regions is not None:
        options.check_folder(regions, "--regions")
    opened = None if suite is None else open_suite(suite, data_root)
    overrides = Overrides(
        resolution,
        window,
        stride,
        templates,
        background,
        patches,
        factors,
        flip,
        refine,
        positions,
        pool_prefix,
        window_average,
    )
    settings = Options(batch_size, workers, groups, GroupMethod(method), clusters, limit, seed, regions)
    command = shlex.join(["clippy", *sys.argv[1:]])
    check_precision(precision)
    with launched_processes() as processes, ExitStack() as stack:
        if not processes.first:
            console.be_silent()
        elif download:
            fetch_missing(datasets, data_root)
        processes.gather(None)  # the others wait for the download
        folder = processes.in_first(
            lambda: stack.enter_context(
                results_folder(
                    out,
                    _OUT,
                    FILES,
                    work="clippy evaluate",
                    overwrite=overwrite,
                    continues=lambda begun: is_unfinished(begun, command),
                )
            )
        )
        taken = stack.enter_context(profiling(profile and processes.first))
        run = EvaluationRun(folder, processes, command=command, seed=seed, suite=opened, profile=taken)
        try:
            evaluate_models(
                opened or datasets,
                model or DEFAULT_MODEL,
                data_root=data_root,
                tasks=tasks,
                protocol=rules,
                overrides=overrides,
                options=settings,
                model_loading=ModelLoading(device, dense, proxy, precision, compiled, not no_cache),
                reading=reading,
                host=run.host(shown=not json, worst_first=worst_first),
            )
        except KeyboardInterrupt:
            raise ClippyError(
                "Interrupted.", "The same command continues from what was counted.", ExitCode.INTERRUPTED
            ) from None
        except ClippyError:
            run.finish(json=json, unfinished=True)
            raise
        run.finish(json=json)
        processes.gather(None)  # torchrun would end the first process with the others
        if processes.first:
            run.leave()
