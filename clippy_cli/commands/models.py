"""``clippy models``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options


def models(
    everything: Annotated[
        bool, typer.Option("--all", help="Also list every pretrained pair of open_clip; takes some seconds.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List what --model takes: shipped models, your runs, and models of other libraries.

    \b
    NAME, DIR               a shipped model, a model directory, a run folder
    open_clip:ARCH/TAG      a pretrained pair of open_clip
    open_clip:ARCH/FILE     a local checkpoint of one of its architectures
    hf:NAME, hf:FOLDER      CLIP, SigLIP, ALIGN or GroupViT of transformers
    timm:NAME, timm:NAME@FILE  an image-only trunk (DINO, DINOv2, MoCo, DeiT)
    dinotxt:NAME, dinotxt:FILES  dino.txt: texts aligned with DINOv2 or DINOv3
    talk2dino:FILE          CLIP's texts mapped to DINOv2; [,text=][,trunk=]
    clip-dinoiser:FILE      CLIP with pooled patches; [,clip=]
    PREFIX:NAME             a model of another installed package's source

    \b
    Nothing is downloaded here; a model that is not at hand is fetched from its
    hub when it is first used.

    \b
    Examples:
      clippy models
      clippy models --all --json
    """
    from dataclasses import asdict
    from itertools import groupby

    from clippy_cli.model.sources.loading import list_models
    from clippy_cli.model.sources.registry import ALL_TASKS

    listing = list_models(everything=everything)
    for failure in listing.failures:
        console.print_warning(str(failure))
    if json:
        console.print_json({"command": "models", "models": [asdict(entry) for entry in listing.models]})
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("can", no_wrap=True)
    table.add_column("at hand", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for kind, entries in groupby(listing.models, lambda entry: entry.kind):
        table.add_row(Text(kind, "cyan"))
        for entry in entries:
            can = "all" if entry.tasks == ALL_TASKS else "group only"
            mark = Text("yes", "green") if entry.at_hand else Text("no", "dim")
            named = entry.weights.startswith("hub ") and entry.weights.endswith(entry.source.partition(":")[2])
            table.add_row(Text(f"  {entry.source}", "bold"), can, mark, Text("hub" if named else entry.weights))
    console.out.print(table)
    console.out.print(Text(f"all: {ALL_TASKS}; hub: the Hugging Face hub", "dim"), soft_wrap=True)
