"""From models and a set to the files of a report: all of ``clippy waterbirds`` but its flags and tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.reporting.products import save_json
from clippy_cli.waterbirds.analyse.figures import PictureMethod
from clippy_cli.waterbirds.analyse.result import AnalysisDocument
from clippy_cli.waterbirds.analyse.run import run_analysis
from clippy_cli.waterbirds.build.backgrounds import Backgrounds, open_backgrounds
from clippy_cli.waterbirds.build.build import build_set
from clippy_cli.waterbirds.build.demo import DEMO_SET, write_demo
from clippy_cli.waterbirds.build.foregrounds import Foregrounds, open_foregrounds
from clippy_cli.waterbirds.dataset import WaterbirdsSet
from clippy_cli.waterbirds.measure.answers import default_words, parse_words
from clippy_cli.waterbirds.measure.result import BirdDocument
from clippy_cli.waterbirds.measure.run import Bar, run_birds
from clippy_cli.waterbirds.report.analysis import write_analysis
from clippy_cli.waterbirds.report.page import draw_bird_examples, write_waterbirds
from clippy_cli.waterbirds.report.sweep import draw_sweep

Load = Callable[[str], VisionLanguageModel]
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


def report_waterbirds(
    sources: Sequence[str],
    load: Load,
    birds: WaterbirdsSet,
    out: Path,
    *,
    split: str,
    resolutions: Sequence[int | None],
    words: str | None,
    templates: str | None,
    limit: int | None,
    batch_size: int,
    workers: int,
    command: str,
    bar: Bar,
) -> WaterbirdsReport:
    """Measure models on a set, and write waterbirds.json, waterbirds.html and, of several resolutions, a plot.

    ``words`` are two birds and background as :func:`parse_words` reads them; None takes the set's own names. The other
    arguments are those of :func:`run_birds`. ClippyError where words, set or model cannot be used, or a file written.
    """
    asked = default_words(birds.birds) if words is None else parse_words(words)
    run = run_birds(
        sources,
        load,
        birds,
        asked,
        split=split,
        resolutions=resolutions,
        templates=templates,
        limit=limit,
        batch_size=batch_size,
        workers=workers,
        command=command,
        bar=bar,
    )
    written = save_json(out / "waterbirds.json", run.document.model_dump(by_alias=True))
    plots = draw_sweep(run.document.results, out) if len(resolutions) > 1 else []
    page = write_waterbirds(
        out / "waterbirds.html",
        run.document,
        asked,
        birds.places,
        examples=draw_bird_examples(birds, run.shown),
        examples_of=run.shown_of,
        sweep=plots[0] if plots else None,
    )
    return WaterbirdsReport(run.document, (written, page, *plots))


def report_analysis(
    sources: Sequence[str],
    load: Load,
    foregrounds: Foregrounds,
    backgrounds: Backgrounds,
    out: Path,
    *,
    objects: int,
    scenes: int,
    resolution: int,
    method: PictureMethod,
    seed: int,
    batch_size: int,
    workers: int,
    command: str,
    bar: Bar,
) -> AnalysisReport:
    """Measure how far backgrounds move embeddings, and write analysis.json, analysis.html and a picture a model.

    The arguments are those of :func:`run_analysis`. ClippyError where too few objects or backgrounds can be used, or a
    file cannot be written.
    """
    run = run_analysis(
        sources,
        load,
        foregrounds,
        backgrounds,
        objects=objects,
        scenes=scenes,
        resolution=resolution,
        method=method,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        command=command,
        bar=bar,
    )
    return AnalysisReport(run.document, tuple(write_analysis(out, run)))


def build_demo_set(out: Path, bar: Bar) -> Path:
    """Draw birds and backgrounds below ``out``, build a set of them as ``clippy waterbirds build`` does; its folder."""
    _log.info("birds and backgrounds are drawn below %s", out)
    birds, grounds = write_demo(out / "drawn")
    foregrounds, backgrounds = open_foregrounds(birds), open_backgrounds(grounds)
    with bar("building", len(foregrounds)) as advance:
        return build_set(foregrounds, backgrounds, out / DEMO_SET, on_progress=advance).folder


def report_demo_analysis(
    sources: Sequence[str],
    load: Load,
    out: Path,
    *,
    resolution: int,
    batch_size: int,
    workers: int,
    command: str,
    bar: Bar,
) -> AnalysisReport:
    """:func:`report_analysis` of what :func:`build_demo_set` drew below ``out``, into ``analysis/`` there."""
    return report_analysis(
        sources,
        load,
        open_foregrounds(out / "drawn" / "birds"),
        open_backgrounds(out / "drawn" / "backgrounds"),
        out / "analysis",
        objects=_DEMO_OBJECTS,
        scenes=8,
        resolution=resolution,
        method=PictureMethod.PCA,
        seed=0,
        batch_size=batch_size,
        workers=workers,
        command=command,
        bar=bar,
    )
