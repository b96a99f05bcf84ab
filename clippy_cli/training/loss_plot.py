"""The loss curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_loss(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG of training and validation loss over steps from log ``records``; nothing where there are none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [record for record in records if record["event"] == "step"]
    validations = [record for record in records if record["event"] == "validation"]
    if not steps:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([record["step"] for record in steps], [record["loss"] for record in steps], label="training")
    if validations:
        axes.plot([r["step"] for r in validations], [r["loss"] for r in validations], "o-", label="validation")
    axes.set(xlabel="step", ylabel="contrastive loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
