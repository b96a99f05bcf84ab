"""``clippy compare``: two stored evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clippy_cli import console
from clippy_cli.commands import options


def compare(
    a: Annotated[
        Path,
        typer.Argument(metavar="A", help="result.json of clippy evaluate --out, or its folder.", show_default=False),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same sets.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Compare two evaluations on the images that both have counted.

    Each set and task of both gets both figures, their difference (B minus A) with a 95 % interval from a paired
    bootstrap over images, and the classes that changed most. Whatever was not the same in the two runs is named.

    \b
    Examples:
      clippy compare a/result.json b/result.json
      clippy compare runs/before runs/after --json
    """
    from dataclasses import asdict

    from clippy_cli.commands.evaluation_tables import print_comparison
    from clippy_cli.evaluation.compare import compare as compare_files

    with console.status("comparing"):
        comparison = compare_files(a, b)
    if json:
        import json as serializer

        document = {"command": "compare", **asdict(comparison)}
        console.print_json(serializer.loads(serializer.dumps(document, default=str)))
    else:
        print_comparison(comparison)
