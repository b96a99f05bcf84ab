"""``clippy group``."""

from __future__ import annotations

from typing import Annotated

import typer

from clippy_cli.commands import options
from clippy_cli.commands.image_run import input_files, load_clip
from clippy_cli.commands.profile_table import profiling
from clippy_cli.commands.region_run import Bases, Output, run_divided
from clippy_cli.inference.choices import DEFAULT_BATCH, DEFAULT_GROUPS, GroupMethod
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO
from clippy_cli.reporting.files import GROUP_DEFAULT, GROUP_KINDS, GROUP_SUFFIX


def group(
    images: options.Images,
    groups: Annotated[
        int, typer.Option(min=1, max=254, metavar="N", help="How many groups; empty ones are left out.")
    ] = DEFAULT_GROUPS,
    method: Annotated[
        GroupMethod,
        typer.Option(
            help="pca: principal components as centres, as in the paper; kmeans and spectral: scikit-learn's."
        ),
    ] = GroupMethod.PCA,
    model: options.Model = DEFAULT_MODEL,
    dense: options.Dense = None,
    proxy: options.Proxy = None,
    positions: options.Positions = None,
    resolution: options.Resolution = None,
    save: Annotated[
        str,
        typer.Option(metavar="KINDS", help=options.kinds_help(GROUP_KINDS)),
    ] = ",".join(GROUP_DEFAULT),
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    batch_size: options.BatchSize = DEFAULT_BATCH,
    device: options.Device = "auto",
    precision: options.Precision = AUTO,
    compiled: options.Compiled = False,
    strict: options.Strict = False,
    json: options.Json = False,
    profile: options.Profiled = False,
) -> None:
    """Cut photos into groups of alike patches, without any words.

    \b
    Writes, for photo.jpg, into the folder of --out:
      photo_groups_overlay.png   the photo tinted by group, with a legend
      photo_groups_mask.png      palette PNG of the photo's size; 1: largest group
      photo_groups.json          share, box and COCO RLE of each group
      photo_groups_pca.png       first three principal components as RGB

    \b
    A principal component is turned to where the third moment of its
    projections is positive, so that the same photo gives the same groups.

    \b
    Examples:
      clippy group photo.jpg
      clippy group photos/ --groups 5 --method kmeans
      clippy group photo.jpg --save pca --resolution 672
    """
    from clippy_cli.inference.requests import GroupRequest

    kinds = options.parse_kinds(save, GROUP_KINDS)
    request = GroupRequest.read(groups, method, {"resolution": resolution})
    found = input_files(images, out, strict=strict)
    output = Output.choose(out, kinds, json, overwrite, Bases(found.paths, (GROUP_SUFFIX,), GROUP_KINDS))
    with output.held("clippy group"), profiling(profile) as taken:
        clip = load_clip(
            model, device, dense=dense, proxy=proxy, positions=positions, precision=precision, compiled=compiled
        )
        answer = clip.prepare(request)
        run_divided(clip, answer, found, output, verb="grouping", batch_size=batch_size, profile=taken)
