"""``clippy classify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.bulk_run import are_shards, refuse_for_shards, run_bulk
from clippy_cli.commands.image_run import MOST_TABLES, Record, collect, input_files, load_clip, prepare
from clippy_cli.commands.profile_table import print_profile, profile_record, profiling
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.inference.choices import DEFAULT_BATCH
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO

if TYPE_CHECKING:
    from collections.abc import Sequence

_STDOUT = Path("/dev/stdout")
CSV_COLUMNS = ("image", "rank", "label", "probability", "score")


def classify(
    images: options.ImagesOrShards,
    labels: options.Labels,
    top_k: Annotated[int, typer.Option(min=1, metavar="K", help="How many labels to give for each image.")] = 5,
    templates: options.Templates = None,
    model: options.Model = DEFAULT_MODEL,
    resolution: options.Resolution = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write image, rank, label, probability, score as CSV; - prints that and no tables.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the results of tar shards, which need one: NAME.jsonl for each."),
    ] = None,
    overwrite: options.Overwrite = False,
    batch_size: options.BatchSize = DEFAULT_BATCH,
    device: options.Device = "auto",
    precision: options.Precision = AUTO,
    compiled: options.Compiled = False,
    no_cache: options.NoCache = False,
    strict: options.Strict = False,
    json: options.Json = False,
    profile: options.Profiled = False,
) -> None:
    """Say which of your labels fit whole photos best.

    \b
    The whole photo is used: its short side is resized to the model's training
    resolution, its aspect is kept, nothing is cropped. The probability is a
    softmax over the labels given: it says which of them fits best, not whether
    any of them does.

    \b
    Of tar shards, each becomes a file of JSON Lines in the folder of --out,
    one line a photo. The same command goes on where it was stopped; torchrun
    --nproc-per-node N -m clippy_cli classify ... shares the work.

    \b
    Examples:
      clippy classify photo.jpg --labels "dog|puppy,cat,horse"
      clippy classify photos/ --labels indoor,outdoor --csv places.csv
      clippy classify photo.jpg --labels beach,forest --templates openai --json
      clippy classify "shards/{00000..00099}.tar" --labels dog,cat --out labels/
    """
    from clippy_cli.files import is_stream
    from clippy_cli.inference.requests import ClassifyRequest
    from clippy_cli.own_files import own_files, replacing_own
    from clippy_cli.reporting.products import save_csv

    request = ClassifyRequest.read(labels, top_k, templates, resolution)
    loading: dict[str, Any] = {
        "source": model,
        "texts": True,
        "precision": precision,
        "compiled": compiled,
        "cache": not no_cache,
    }
    if are_shards(images):
        from clippy_cli.bulk.products import ClassifyLines

        run_bulk(
            images,
            refuse_for_shards(out, csv=csv, overwrite=overwrite, strict=strict, profile=profile),
            ClassifyLines(),
            {"command": "classify", "top_k": top_k},
            command="classify",
            prepare=lambda clip: prepare(clip, request),
            load=loading,
            device=device,
            batch_size=batch_size,
            json=json,
        )
        return
    if out is not None:
        raise ClippyError("--out is for tar shards", "Write a table of photos with --csv FILE.", ExitCode.USAGE)
    csv = _STDOUT if csv == Path("-") else csv
    printed = csv == _STDOUT
    if printed and json:
        raise ClippyError("--json and a --csv of - both write to standard output", "Give --csv a file.")
    if csv is not None and not overwrite and not is_stream(csv):
        own_files(csv.parent).check([csv], flag="--csv")
    found = input_files(images, strict=strict)
    with profiling(profile) as taken:
        clip = load_clip(device=device, **loading)
        answer = prepare(clip, request)
        run = collect(clip, answer, found, "classifying", lambda result, stem: result.record(), batch_size=batch_size)
    timed = {} if taken is None else {"profile": profile_record(taken, len(found.paths))}
    if csv is not None:
        with replacing_own(csv.parent, overwrite=overwrite):
            save_csv(csv, CSV_COLUMNS, _rows(run.done))
    if json:
        console.print_json(
            {**answer.settings, "images": run.done, "failed": run.failed, "notices": run.notices.records(), **timed}
        )
    elif not printed:
        _print_guesses(run.done)
    if timed and not json:
        print_profile(timed["profile"])
    run.finish()


def _rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [
        {"image": record["image"], "rank": rank, **guess}
        for record in records
        for rank, guess in enumerate(record["guesses"], start=1)
    ]


def _print_guesses(records: Sequence[Record]) -> None:
    for record in records:
        if len(records) > MOST_TABLES:
            guesses = ", ".join(f"{guess['label']} {100 * guess['probability']:.1f} %" for guess in record["guesses"])
            console.out.print(Text.assemble((record["image"], "bold"), f"  {guesses}"), soft_wrap=True)
            continue
        console.out.print(Text(record["image"], "bold"), soft_wrap=True)
        table = Table("label", box=None, pad_edge=False)
        table.add_column("probability", justify="right")
        table.add_column("score", justify="right")
        for guess in record["guesses"]:
            table.add_row(Text(guess["label"]), f"{100 * guess['probability']:.1f} %", f"{guess['score']:.3f}")
        console.out.print(table)
