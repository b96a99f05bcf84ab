"""``clippy import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from clippy_cli import console
from clippy_cli.errors import ClippyError


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="The authors' checkpoint, such as clippy_5k.pt.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model directory to write; must not exist yet.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Tokenizer files of sentence-t5-base: a folder with tokenizer.json, or a name on the hub. "
            "Default: sentence-transformers/sentence-t5-base.",
        ),
    ] = None,
    architecture: Annotated[str, typer.Option(metavar="NAME|YAML", hidden=True)] = "clippy-b16",
) -> None:
    """Turn the CLIPpy authors' checkpoint into a model directory that --model takes.

    \b
    The file is read as tensors alone; code in it is refused. Tensors that are
    unknown, missing or of another shape are all named, and nothing is written.

    \b
    Examples:
      clippy import clippy_5k.pt models/clippy-5k
      clippy import clippy_5k.pt models/clippy-5k --tokenizer ~/sentence-t5-base
    """
    from clippy_cli.model.sources.authors import import_checkpoint as read_checkpoint
    from clippy_cli.model.store import save_model

    if out.exists():
        raise ClippyError(f"{out} exists already", "Name a folder that does not, or remove that one.")
    with console.status(f"reading {checkpoint}"):
        save_model(read_checkpoint(checkpoint, architecture=architecture, tokenizer=tokenizer), out)
    console.out.print(Text.assemble("wrote ", (str(out), "bold")), soft_wrap=True)
    console.print_hint(f"clippy segment photo.jpg --labels dog,grass --model {out}")
