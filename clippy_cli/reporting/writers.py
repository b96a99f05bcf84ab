"""The files that a result becomes: one function a kind.

A new kind is a function here with its line in ``WRITERS``, and its name and ending in ``reporting/files.py``. JSON
is not among them: it names the other files, and :meth:`~clippy_cli.reporting.results.Divided.save` writes it last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clippy_cli.reporting.debug import write_debug
from clippy_cli.reporting.files import ENDINGS
from clippy_cli.reporting.masks import write_cutouts, write_mask, write_scores
from clippy_cli.reporting.products import beside, save_picture
from clippy_cli.stages import MASK, OVERLAY, PCA, stage

if TYPE_CHECKING:
    from clippy_cli.reporting.results import Divided, Groups, Segmentation

Writer = Callable[[Any, Path], str | list[str]]


def _overlay(result: Divided, base: Path) -> str:
    with stage(OVERLAY):
        return str(save_picture(beside(base, ENDINGS["overlay"]), result.overlay()))


def _mask(result: Divided, base: Path) -> str:
    with stage(MASK):
        return str(write_mask(beside(base, ENDINGS["mask"]), result.mask))


def _cutouts(result: Divided, base: Path) -> list[str]:
    folder = beside(base, ENDINGS["cutouts"])
    return [str(path) for path in write_cutouts(folder, result.image, result.mask, result.labels)]


def _scores(result: Segmentation, base: Path) -> str:
    return str(write_scores(beside(base, ENDINGS["scores"]), result.similarity, result.entries, *result.mask.shape))


def _debug(result: Segmentation, base: Path) -> list[str]:
    written = write_debug(beside(base, ENDINGS["debug"]), result.explanation, result.image, result.mask)
    return [str(path) for path in written]


def _pca(result: Groups, base: Path) -> str:
    with stage(PCA):
        return str(save_picture(beside(base, ENDINGS["pca"]), result.pca()))


# Kind -> what writes it: a result, and folder with stem, such as ``out/photo``; returns the path or paths.
WRITERS: Mapping[str, Writer] = {
    "overlay": _overlay,
    "mask": _mask,
    "cutouts": _cutouts,
    "scores": _scores,
    "debug": _debug,
    "pca": _pca,
}
