"""clippy: where things are, learned from image-caption pairs alone.

>>> import clippy_cli as clippy
>>> clip = clippy.load()
>>> clip.segment(clippy.sample_photo(), ["raccoon", "grass"]).labels
('raccoon', 'grass')

Importing the package loads no torch: each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clippy_cli.api import evaluate as evaluate
    from clippy_cli.api import load as load
    from clippy_cli.api import sample_photo as sample_photo
    from clippy_cli.api import train as train
    from clippy_cli.clip import Clip as Clip
    from clippy_cli.clip import Photo as Photo
    from clippy_cli.errors import ClippyError as ClippyError
    from clippy_cli.reporting.answers import Failure as Failure
    from clippy_cli.reporting.embeddings import Embedding as Embedding
    from clippy_cli.reporting.results import Classification as Classification
    from clippy_cli.reporting.results import Groups as Groups
    from clippy_cli.reporting.results import Segmentation as Segmentation

__version__ = "0.1.0"

_HOMES = {
    "load": "api",
    "Clip": "clip",
    "Photo": "clip",
    "Segmentation": "reporting.results",
    "Groups": "reporting.results",
    "Classification": "reporting.results",
    "Embedding": "reporting.embeddings",
    "Failure": "reporting.answers",
    "ClippyError": "errors",
    "evaluate": "api",
    "train": "api",
    "sample_photo": "api",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
