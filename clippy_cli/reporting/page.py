"""Pages that need nothing else: one HTML file, pictures inside, no script, no network."""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.files import write_whole
from clippy_cli.reporting.evaluation import figures

_TEMPLATES = resources.files("clippy_cli") / "assets"
_MAX_SIDE = 480
_QUALITY = 82


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template of the package with ``values`` and write it as a whole; ClippyError where that cannot be done.

    What is filled in is shown as text, whatever it holds. Templates have the filters ``percent``, ``metric`` and
    ``written`` of :mod:`~clippy_cli.reporting.evaluation.figures`, and that module as ``figures``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(_TEMPLATES)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=figures.percent, metric=figures.metric_name, written=figures.written)
    page = environment.get_template(template).render(figures=figures, **values)
    return write_whole(path, lambda stream: stream.write(page.encode("utf-8", errors="replace")))


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """(H,W,3) uint8 -> a JPEG of at most 480 pixels a side, within the page."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def file_uri(png: Path) -> str:
    """A PNG file as it is, within the page."""
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode('ascii')}"
