"""Accuracy over resolutions as a picture (arXiv 2210.09996, figure 4D)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clippy_cli.files import write_whole
from clippy_cli.waterbirds.measure.result import BirdResult, model_labels


def draw_sweep(results: Sequence[BirdResult], out: Path) -> list[Path]:
    """Write ``sweep.png`` and ``sweep.svg``: worst group and mean over groups, a line for each model and readout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    labels = model_labels(results)
    for model, readout in dict.fromkeys((result.model, result.readout) for result in results):
        points = [result for result in results if (result.model, result.readout) == (model, readout)]
        points.sort(key=lambda result: result.resolution)
        for axes, name in zip(panels, ("worst", "mean_over_groups"), strict=True):
            values = [_in_percent(getattr(point, name)) for point in points]
            style = "o-" if readout == "patch" else "s--"
            axes.plot([point.resolution for point in points], values, style, label=f"{labels[model]}, {readout}")
    for axes, title in zip(panels, ("worst group", "mean over groups"), strict=True):
        axes.set(xlabel="short side in pixels", title=title, ylim=(0, 100))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy in per cent")
    for text in panels[0].legend().get_texts():
        text.set_parse_math(False)  # names may hold dollar signs
    return [_save(figure, out / f"sweep.{form}", form) for form in ("png", "svg")]


def _save(figure: Any, path: Path, form: str) -> Path:
    return write_whole(path, lambda stream: figure.savefig(stream, format=form, dpi=150))


def _in_percent(share: float | None) -> float:
    return float("nan") if share is None else 100 * share
