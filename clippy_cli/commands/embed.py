"""``clippy embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clippy_cli.commands import options
from clippy_cli.commands.bulk_run import are_shards, run_bulk
from clippy_cli.commands.image_run import input_files
from clippy_cli.inference.choices import DEFAULT_BATCH
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO


def embed(
    images: options.ImagesOrShards,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results: new, or of the same run.")],
    patches: Annotated[
        bool, typer.Option("--patches", help="One vector for each patch, instead of one for each photo.")
    ] = False,
    format: Annotated[
        str, typer.Option(metavar="safetensors|parquet", help="Of the files; parquet needs clippy-seg\\[parquet].")
    ] = "safetensors",
    dtype: Annotated[str, typer.Option(metavar="float16|float32", help="What the values are stored in.")] = "float16",
    model: options.Model = DEFAULT_MODEL,
    dense: options.Dense = None,
    proxy: options.Proxy = None,
    positions: options.Positions = None,
    resolution: options.Resolution = None,
    batch_size: options.BatchSize = DEFAULT_BATCH,
    device: options.Device = "auto",
    precision: options.Precision = AUTO,
    compiled: options.Compiled = False,
    json: options.Json = False,
) -> None:
    """Write embeddings of photos: one vector a photo, or one for each patch.

    \b
    Writes a file for each input shard, or for each 4,096 photos, and
    manifest.json, which says how they were made:
      NAME.safetensors    embeddings (n,D), keys in the metadata; with --patches
                          patches (all of them, D) and grids (n,2): h, w a photo
      NAME.parquet        a row for each photo: key, embedding, error

    \b
    The same command goes on where it was stopped. torchrun --nproc-per-node N
    -m clippy_cli embed ... shares the work; the files are the same.

    \b
    Examples:
      clippy embed photos/ --out vectors/
      clippy embed "photos/**/*.jpg" --out patches/ --patches --dtype float32
      clippy embed "shards/{00000..00099}.tar" --out vectors/ --format parquet
      clippy embed "https://host/{00000..01242}.tar" --out vectors/
    """
    from clippy_cli.bulk.vectors import choose_format, parse_dtype, parse_format

    stored = parse_dtype(dtype)
    product = choose_format(parse_format(format), stored, patches=patches)
    found = None if are_shards(images) else input_files(images, out)
    run_bulk(
        images,
        out,
        product,
        {"command": "embed", "format": product.ending[1:], "dtype": str(stored)},
        command="embed",
        prepare=lambda clip: clip.prepare_embeddings(patches=patches, resolution=resolution),
        load={
            "source": model,
            "dense": dense,
            "proxy": proxy,
            "positions": positions,
            "precision": precision,
            "compiled": compiled,
        },
        device=device,
        batch_size=batch_size,
        json=json,
        photos=() if found is None else found.paths,
        notices=None if found is None else found.notices,
    )
