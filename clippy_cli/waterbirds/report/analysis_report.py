"""The files of an analysis: ``analysis.json``, the pictures, and ``analysis.html`` with the pictures inside."""

from __future__ import annotations

import base64
from pathlib import Path

from clippy_cli.reporting.page import write_page
from clippy_cli.reporting.products import save_json
from clippy_cli.waterbirds.analyse.run import AnalysisRun
from clippy_cli.waterbirds.report.analysis_plot import draw_clouds


def write_analysis(out: Path, run: AnalysisRun) -> list[Path]:
    """Write all files of a run into ``out`` and name them; ClippyError where that cannot be done."""
    document = run.document
    pictures = draw_clouds(run, out)
    models = dict.fromkeys(result.model for result in document.results)
    page = write_page(
        out / "analysis.html",
        "waterbirds_analysis.html.j2",
        document=document,
        pictures=[(model, _inline(png)) for model, (png, _) in zip(models, pictures, strict=True)],
    )
    written = save_json(out / "analysis.json", document.model_dump(by_alias=True))
    return [written, page, *(path for pair in pictures for path in pair)]


def _inline(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode('ascii')}"
