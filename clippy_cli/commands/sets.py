"""``clippy sets``: the sets of the catalogue, found or missing, and fetching those that can be downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.errors import ClippyError


def sets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Only these sets. Default: all.", show_default=False),
    ] = None,
    data_root: options.DataRoot = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Fetch the named sets that are missing into --data-root first (VOC 2012)."),
    ] = False,
    json: options.Json = False,
) -> None:
    """List the sets that clippy evaluate knows by name: found or missing, and where each was looked for.

    \b
    Examples:
      clippy sets --data-root ~/data
      clippy sets voc ade20k
      clippy sets voc --download --data-root ~/data
    """
    from clippy_cli.data.benchmarks.catalogue import benchmark_names, unknown_error

    for name in names or []:
        if name not in benchmark_names():
            raise unknown_error(name)
    if download:
        if not names:
            raise ClippyError("--download needs the names of the sets", "Write clippy sets voc --download.")
        fetch_missing(names, data_root)
    list_sets(data_root, json, names or ())


def fetch_missing(names: Sequence[str], data_root: Path | None) -> None:
    """Download the named sets of the catalogue that are not there; ClippyError where one has no downloader."""
    from clippy_cli.data.benchmarks import catalogue
    from clippy_cli.data.benchmarks.base import data_root as find_root

    root = find_root(data_root)
    for name in names:
        known = name in catalogue.benchmark_names() and name != catalogue.SCENES
        if known and all(catalogue.locate(spec, root) is None for spec in catalogue.layouts(name)):
            with console.status(f"downloading {name} into {root}"):
                catalogue.download(name, root)


def list_sets(data_root: Path | None, json: bool, names: Sequence[str] = ()) -> None:
    """Print the named sets, or every set of the catalogue, and where it is or was looked for."""
    from clippy_cli.data.benchmarks.base import DATA_VARIABLE
    from clippy_cli.data.benchmarks.base import data_root as find_root
    from clippy_cli.data.benchmarks.catalogue import describe_all

    root = find_root(data_root) if data_root is not None or os.environ.get(DATA_VARIABLE) else None
    statuses = [status for status in describe_all(root) if not names or status.name in names]
    if json:
        records = [
            {
                "name": status.name,
                "title": status.title,
                "kind": status.kind,
                "classes": status.classes,
                "images": status.images,
                "folder": None if status.folder is None else str(status.folder),
                "looked_for": [str(path) for path in status.looked_for],
            }
            for status in statuses
        ]
        console.print_json({"command": "sets", "data_root": None if root is None else str(root), "sets": records})
        return
    table = Table("set", "kind", box=None, pad_edge=False)
    table.add_column("classes", justify="right")
    table.add_column("images", justify="right")
    table.add_column("where", overflow="fold")
    for status in statuses:
        found = status.images is not None
        where = "generated" if status.folder is None else _below(root, status.folder)
        tried = [_below(root, path) for path in status.looked_for[:1]]
        fetch = "; --download fetches it" if status.downloadable else ""
        looked = status.problem or f"missing: looked for {''.join(tried)}{fetch}"
        table.add_row(
            Text(status.name, "bold"),
            status.kind,
            str(status.classes or ""),
            f"{status.images:,}" if found else "-",
            Text(where) if found else Text(looked if status.looked_for else "no data folder is named", "dim"),
        )
    if root is not None:
        console.out.print(Text.assemble("data folder ", (str(root), "bold")), soft_wrap=True)
    console.out.print(table)
    if root is None:
        console.print_hint(f"Give --data-root FOLDER, or set {DATA_VARIABLE} to the folder that holds the data sets.")


def _below(root: Path | None, path: Path) -> str:
    return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)
