"""From models and a set to the files of a report: all of ``clippy waterbirds`` but its flags and tables."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from clippy_cli.reporting.products import save_json
from clippy_cli.waterbirds.analyse.result import AnalysisDocument
from clippy_cli.waterbirds.analyse.run import AnalysisSettings, run_analysis
from clippy_cli.waterbirds.build.backgrounds import Backgrounds, open_backgrounds
from clippy_cli.waterbirds.build.build import build_set
from clippy_cli.waterbirds.build.demo import DEMO_SET, write_demo
from clippy_cli.waterbirds.build.foregrounds import Foregrounds, open_foregrounds
from clippy_cli.waterbirds.dataset import WaterbirdsSet
from clippy_cli.waterbirds.measure.answers import BirdWords, default_words, parse_words
from clippy_cli.waterbirds.measure.result import BirdDocument
from clippy_cli.waterbirds.measure.run import Bar, BirdQuestion, ModelRun, run_birds
from clippy_cli.waterbirds.report.analysis import write_analysis
from clippy_cli.waterbirds.report.page import draw_bird_examples, write_waterbirds
from clippy_cli.waterbirds.report.sweep import draw_sweep

FILES = ("waterbirds.json", "waterbirds.html", "sweep.png", "sweep.svg")
ANALYSIS_FILES = ("analysis.json", "analysis.html")
_DEMO_OBJECTS = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaterbirdsReport:
    """What was measured, and the files that say so."""

    document: BirdDocument
    written: tuple[Path, ...]


@dataclass(frozen=True)
class AnalysisReport:
    """What was analysed, and the files that say so."""

    document: AnalysisDocument
    written: tuple[Path, ...]


def report_waterbirds(models: ModelRun, birds: WaterbirdsSet, question: BirdQuestion, out: Path) -> WaterbirdsReport:
    """Measure models on a set, and write waterbirds.json, waterbirds.html and, of several resolutions, a plot.

    ClippyError where set or model cannot be used, or a file written.
    """
    run = run_birds(models, birds, question)
    written = save_json(out / "waterbirds.json", run.document.model_dump(by_alias=True))
    plots = draw_sweep(run.document.results, out) if len(question.resolutions) > 1 else []
    page = write_waterbirds(
        out / "waterbirds.html",
        run.document,
        question.words,
        birds.places,
        examples=draw_bird_examples(birds, run.shown),
        examples_of=run.shown_of,
        sweep=plots[0] if plots else None,
    )
    return WaterbirdsReport(run.document, (written, page, *plots))


def bird_words(birds: WaterbirdsSet, words: str | None) -> BirdWords:
    """Two birds and background as :func:`parse_words` reads them; None takes the set's own names."""
    return default_words(birds.birds) if words is None else parse_words(words)


def report_analysis(
    models: ModelRun, foregrounds: Foregrounds, backgrounds: Backgrounds, settings: AnalysisSettings, out: Path
) -> AnalysisReport:
    """Measure how far backgrounds move embeddings, and write analysis.json, analysis.html and a picture a model.

    ClippyError where too few objects or backgrounds can be used, or a file cannot be written.
    """
    run = run_analysis(models, foregrounds, backgrounds, settings)
    return AnalysisReport(run.document, tuple(write_analysis(out, run)))


def build_demo_set(out: Path, bar: Bar) -> Path:
    """Draw birds and backgrounds below ``out``, build a set of them as ``clippy waterbirds build`` does; its folder."""
    _log.info("birds and backgrounds are drawn below %s", out)
    birds, grounds = write_demo(out / "drawn")
    foregrounds, backgrounds = open_foregrounds(birds), open_backgrounds(grounds)
    with bar("building", len(foregrounds)) as advance:
        return build_set(foregrounds, backgrounds, out / DEMO_SET, on_progress=advance).folder


def report_demo_analysis(models: ModelRun, resolution: int, out: Path) -> AnalysisReport:
    """:func:`report_analysis` of what :func:`build_demo_set` drew below ``out``, into ``analysis/`` there."""
    foregrounds, backgrounds = (
        open_foregrounds(out / "drawn" / "birds"),
        open_backgrounds(out / "drawn" / "backgrounds"),
    )
    settings = AnalysisSettings(objects=_DEMO_OBJECTS, resolution=resolution)
    return report_analysis(models, foregrounds, backgrounds, settings, out / "analysis")
