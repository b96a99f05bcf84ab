"""Annotated image sets to measure on, all with one face; see ``base.py``."""

from __future__ import annotations

import difflib
from pathlib import Path

from clippy_cli.data.benchmarks.base import SegmentationBenchmark, data_root
from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.data.benchmarks.voc import open_voc
from clippy_cli.errors import ClippyError

BENCHMARKS = {
    "voc": "PASCAL VOC 2012, 20 classes and background",
    "voc20": "PASCAL VOC 2012, 20 classes, background ignored",
    "scenes": "200 generated scenes of 64x64 pixels, held out from training",
}


def open_benchmark(name: str, root: Path | None) -> SegmentationBenchmark:
    """A benchmark by its name in ``BENCHMARKS``; data sets are looked for in ``root``, or where CLIPPY_DATA points.

    ClippyError on an unknown name or a set that is not there.
    """
    if name == "scenes":
        return SceneBenchmark(count=200, resolution=64)
    if name in ("voc", "voc20"):
        return open_voc(data_root(root), background=name == "voc")
    close = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    names = ", ".join(f"{known} ({what})" for known, what in BENCHMARKS.items())
    raise ClippyError(f"No benchmark is called {name!r}{meant}", f"Choose among {names}.")
