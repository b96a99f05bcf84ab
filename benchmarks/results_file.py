"""Where benchmarks keep what they measured: a dated Markdown file that names the hardware."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def write_results(
    name: str,
    settings: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    device: torch.device,
    notes: Sequence[str] = (),
) -> Path:
    """Write ``results/NAME-DATE-HARDWARE.md``: settings, a table, and ``notes``, the lines below it.

    The hardware is that of ``device``.
    """
    hardware = f"{os.cpu_count()}-core-{platform.machine()}"
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device).replace(" ", "-").lower()
    today = datetime.date.today().isoformat()
    lines = [
        f"# {name.replace('_', ' ').capitalize()}, {today}, {hardware}, torch {torch.__version__}",
        "",
        settings,
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        *(["", *notes] if notes else []),
    ]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}-{today}-{hardware}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
