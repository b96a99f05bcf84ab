"""The files of an analysis: ``analysis.json``, pictures of class and place, ``analysis.html`` with these inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from clippy_cli.files import write_whole
from clippy_cli.reporting.evaluation.figures import percent
from clippy_cli.reporting.files import safe_name
from clippy_cli.reporting.page import file_uri, write_page
from clippy_cli.reporting.products import save_json
from clippy_cli.waterbirds.analyse.run import AnalysisRun, Cloud

# Okabe and Ito's colours, which the colour-blind tell apart; place has others than class, as they mean other things.
_CLASS_COLOURS = ("#d55e00", "#0072b2")
_PLACE_COLOURS = ("#009e73", "#b5578c")


def write_analysis(out: Path, run: AnalysisRun) -> list[Path]:
    """Write all files of a run into ``out`` and name them; ClippyError where that cannot be done."""
    document = run.document
    pictures = draw_clouds(run, out)
    models = dict.fromkeys(result.model for result in document.results)
    page = write_page(
        out / "analysis.html",
        "waterbirds_analysis.html.j2",
        document=document,
        pictures=[(model, file_uri(png)) for model, (png, _) in zip(models, pictures, strict=True)],
    )
    written = save_json(out / "analysis.json", document.model_dump(by_alias=True))
    return [written, page, *(path for pair in pictures for path in pair)]


def draw_clouds(run: AnalysisRun, out: Path) -> list[tuple[Path, Path]]:
    """Write ``embeddings_<model>.png`` and ``.svg`` into ``out``, a pair a model in their order.

    A row a readout; the left column is coloured by class, the right one by place.
    """
    taken: set[str] = set()
    drawn = []
    for model in dict.fromkeys(cloud.result.model for cloud in run.clouds):
        clouds = [cloud for cloud in run.clouds if cloud.result.model == model]
        drawn.append(_draw(clouds, run, out, safe_name(f"embeddings_{model.name}", taken)))
    return drawn


def _draw(clouds: Sequence[Cloud], run: AnalysisRun, out: Path, stem: str) -> tuple[Path, Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    document = run.document
    figure = Figure(figsize=(10, 4.6 * len(clouds)), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
    FigureCanvasAgg(figure)
    method = document.settings["picture"]
    # parse_math is off wherever names are written: a dollar in them is a dollar.
    figure.suptitle(f"{clouds[0].result.model.name}: {method} of the embeddings", parse_math=False)
    for row, (cloud, panels) in enumerate(zip(clouds, figure.subplots(len(clouds), 2, squeeze=False), strict=True)):
        result = cloud.result
        columns = (
            ("class", cloud.classes, document.classes, result.class_share, _CLASS_COLOURS),
            ("place", cloud.places, document.places, result.place_share, _PLACE_COLOURS),
        )
        for axes, (factor, codes, names, share, colours) in zip(panels, columns, strict=True):
            for code, (name, colour) in enumerate(zip(names, colours, strict=True)):
                points = cloud.points[codes == code]
                axes.scatter(points[:, 0], points[:, 1], s=26, c=colour, alpha=0.7, linewidths=0, label=name)
            axes.set_title(f"{result.readout}: {factor} explains {percent(share)} of the variance")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("0.8")
            axes.set_aspect("equal", adjustable="datalim")
            if row == 0:
                for text in axes.legend(loc="best", framealpha=0.8).get_texts():
                    text.set_parse_math(False)
    png, svg = (
        write_whole(out / f"{stem}.{form}", partial(figure.savefig, format=form, dpi=130)) for form in ("png", "svg")
    )
    return png, svg
