"""``clippy group``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clippy_cli.commands import options
from clippy_cli.commands.image_run import input_files, load_model
from clippy_cli.commands.region_run import Regions, run_regions
from clippy_cli.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from clippy_cli.inference.features import Encoded, ImageFile

KINDS = ("overlay", "mask", "json", "pca", "cutouts")


class GroupMethod(StrEnum):
    """How patches are grouped."""

    pca = "pca"
    kmeans = "kmeans"
    spectral = "spectral"


def group(
    images: options.Images,
    groups: Annotated[
        int, typer.Option(min=1, max=254, metavar="N", help="How many groups; empty ones are left out.")
    ] = 8,
    method: Annotated[
        GroupMethod,
        typer.Option(
            help="pca: principal components as centres, as in the paper; kmeans and spectral: scikit-learn's."
        ),
    ] = GroupMethod.pca,
    model: options.Model = DEFAULT_MODEL,
    dense: options.Dense = None,
    proxy: options.Proxy = None,
    resolution: options.Resolution = None,
    save: Annotated[
        str, typer.Option(metavar="KINDS", help=f"What to write: any of {', '.join(KINDS)}, with commas; or none.")
    ] = "overlay,mask,json,pca",
    out: options.Out = options.DEFAULT_OUT,
    batch_size: options.BatchSize = options.DEFAULT_BATCH,
    device: options.Device = "auto",
    json: options.Json = False,
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
    from PIL import Image

    from clippy_cli.inference.group import group_patches, pca_picture
    from clippy_cli.reporting.overlay import shown_size
    from clippy_cli.reporting.products import save_picture

    kinds = options.parse_kinds(save, KINDS)
    paths = input_files(images, out)
    clip = load_model(model, device, dense=dense, proxy=proxy)
    short_side = resolution or clip.defaults.resolution
    settings: dict[str, Any] = {
        "command": "group",
        "model": model,
        "dense": dense,
        "proxy": proxy,
        "groups": groups,
        "method": method.value,
        "resolution": short_side,
    }

    def divide(encoded: Encoded[ImageFile]) -> Regions:
        height, width = encoded.sample.image.shape[:2]
        label_map = group_patches(encoded.output, height, width, groups=groups, method=method.value)

        def write_pca(path: Path) -> None:
            rows, columns = shown_size(height, width)
            picture = Image.fromarray(pca_picture(encoded.output))
            save_picture(path, picture.resize((columns, rows), Image.Resampling.BILINEAR))

        names = [f"group {code}" for code in range(1, len(label_map.pixels))]
        return Regions(label_map, names, scored=False, suffix="_groups", writers={"pca": ("_pca.png", write_pca)})

    run_regions(
        paths,
        clip,
        divide,
        settings,
        verb="grouping",
        kinds=kinds,
        out=out,
        resolution=short_side,
        batch_size=batch_size,
        json=json,
    )
