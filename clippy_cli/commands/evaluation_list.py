"""``clippy evaluate --list``."""

from __future__ import annotations

import os
from pathlib import Path

from rich.table import Table
from rich.text import Text

from clippy_cli import console


def list_sets(data_root: Path | None, json: bool) -> None:
    """Every set of the catalogue, and where it is or was looked for."""
    from clippy_cli.data.benchmarks.base import DATA_VARIABLE
    from clippy_cli.data.benchmarks.base import data_root as find_root
    from clippy_cli.data.benchmarks.catalogue import describe_all

    root = find_root(data_root) if data_root is not None or os.environ.get(DATA_VARIABLE) else None
    statuses = describe_all(root)
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
        console.print_json({"command": "evaluate", "data_root": None if root is None else str(root), "sets": records})
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
