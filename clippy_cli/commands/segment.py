"""``clippy segment``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.bulk_run import are_shards, refuse_for_shards, run_bulk
from clippy_cli.commands.image_run import input_files, load_clip, prepare
from clippy_cli.commands.profile_table import profiling
from clippy_cli.commands.region_run import Bases, Output, run_divided
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import DEFAULT_BATCH, DEFAULT_REFINEMENT
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO
from clippy_cli.reporting.files import SEGMENT_DEFAULT, SEGMENT_KINDS, WITH_REGIONS


def segment(
    images: options.ImagesOrShards,
    labels: options.Labels,
    background: Annotated[
        str | None, typer.Option(metavar="A,B", help="Words that compete like labels but are left unlabeled.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="P",
            help="Leave pixels unlabeled whose score is below this. The score is the label's probability among all "
            "labels and background words; with one label and no background words, its cosine.",
        ),
    ] = None,
    templates: options.Templates = None,
    model: options.Model = DEFAULT_MODEL,
    dense: options.Dense = None,
    proxy: options.Proxy = None,
    positions: options.Positions = None,
    resolution: options.Resolution = None,
    scales: options.Scales = None,
    flip: options.Flip = None,
    window: options.Window = None,
    stride: options.Stride = None,
    refine: options.Refine = DEFAULT_REFINEMENT,
    regions: options.RegionFolder = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help=f"{options.kinds_help(SEGMENT_KINDS)} Default: {','.join(SEGMENT_DEFAULT)}; for shards mask,json.",
        ),
    ] = None,
    out: options.Out = None,
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
    """Give every pixel of photos one of your labels.

    \b
    Writes, for photo.jpg, into the folder of --out:
      photo_overlay.png   the photo tinted by label, with a legend
      photo_mask.png      palette PNG of the photo's size; 0: unlabeled, 1: first
                          label, and so on
      photo.json          share, mean score, box and COCO RLE of each label
      photo_cutouts/      with --save cutouts: a transparent PNG for each label
      photo_scores.npz    with --save scores: cosine of each label and patch
      photo_debug/        with --save debug: prompts, views, best texts a patch
      photo+regions_...   with --regions: the same again, one label a region

    \b
    A file that cannot be used is reported and the others are done; files of
    types that are not read are counted. The exit code is 3 in both cases.

    \b
    Of tar shards, each becomes a tar with KEY.mask.png and KEY.json in the
    folder of --out. The same command goes on where it was stopped; torchrun
    --nproc-per-node N -m clippy_cli segment ... shares the work.

    \b
    Examples:
      clippy segment photo.jpg --labels dog,grass
      clippy segment photos/ --labels "dog|puppy,cat" --background wall,sky
      clippy segment photo.jpg --labels dog --background grass --save cutouts
      clippy segment photo.jpg --labels dog,grass --scales 1,2 --flip --refine guided
      clippy segment "photos/**/*.jpg" --labels car,road --save none --json
      clippy segment "shards/{00000..00099}.tar" --labels dog,cat --out masks/
    """
    from clippy_cli.inference.requests import SegmentRequest
    from clippy_cli.inference.views import parse_scales
    from clippy_cli.reporting.masks import check_label_count

    kinds = options.parse_kinds(",".join(SEGMENT_DEFAULT) if save is None else save, SEGMENT_KINDS)
    request = SegmentRequest.read(
        labels,
        {
            "background": background or (),
            "threshold": threshold,
            "templates": templates,
            "resolution": resolution,
            "scales": parse_scales(scales) if scales else None,
            "flip": bool(flip),
            "window": window,
            "stride": stride,
            "refine": refine,
        },
    )
    loading: dict[str, Any] = {
        "source": model,
        "dense": dense,
        "proxy": proxy,
        "positions": positions,
        "texts": True,
        "precision": precision,
        "compiled": compiled,
        "cache": not no_cache,
    }
    if are_shards(images):
        from clippy_cli.bulk.products import SegmentTar, shard_kinds

        folder = refuse_for_shards(out, regions=regions, overwrite=overwrite, strict=strict, profile=profile)
        chosen = shard_kinds(None if save is None else kinds)
        run_bulk(
            images,
            folder,
            SegmentTar(chosen, len(request.vocabulary.labels)),
            {"command": "segment", "save": list(chosen)},
            command="segment",
            prepare=lambda clip: prepare(clip, request),
            load=loading,
            device=device,
            batch_size=batch_size,
            json=json,
        )
        return
    if {"overlay", "mask"}.intersection(kinds):
        check_label_count(len(request.vocabulary.labels))
    if regions is not None:
        options.check_folder(regions, "--regions")
    found = input_files(images, out, strict=strict)
    if regions is not None:
        _check_stems(found.paths)
    suffixes = ("",) if regions is None else ("", WITH_REGIONS)
    output = Output.choose(out, kinds, json, overwrite, Bases(found.paths, suffixes, SEGMENT_KINDS))
    with output.held("clippy segment"), profiling(profile) as taken:
        clip = load_clip(device=device, **loading)
        answer = prepare(clip, request)
        if answer.settings["score_kind"] == "cosine" and threshold is None:
            console.print_hint("One label alone gets every pixel; add --background words or a --threshold.")
        run_divided(
            clip, answer, found, output, verb="segmenting", batch_size=batch_size, regions=regions, profile=taken
        )


def _check_stems(paths: Sequence[Path]) -> None:
    """ClippyError where two photos would take the same file of regions."""
    stems = [path.stem for path in paths]
    shared = next((stem for stem in stems if stems.count(stem) > 1), None)
    if shared is not None:
        raise ClippyError(
            f"{stems.count(shared)} photos are called {shared}, and would take the same file of --regions",
            "Segment them one folder at a time, each with a --regions folder of its own.",
        )
