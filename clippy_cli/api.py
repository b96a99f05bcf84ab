"""The public Python interface: load a model, ask it about photos, measure it, train one.

>>> import clippy_cli as clippy
>>> clip = clippy.load()
>>> seg = clip.segment(clippy.sample_photo(), ["raccoon", "grass"])
>>> seg.labels
('raccoon', 'grass')
>>> seg.mask.shape
(768, 1024)

Commands and demo stand on the same calls. Photos go in as paths, Pillow images, NumPy arrays or torch tensors; results
are frozen dataclasses of NumPy arrays that draw, save and show themselves. Mistakes of a caller raise a
:class:`~clippy_cli.errors.ClippyError`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from clippy_cli.clip import Clip, Photo
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.sources.loading import check_source, load_model
from clippy_cli.reporting.answers import ModelChoice

__all__ = ["Clip", "Photo", "load", "sample_photo"]


def load(
    model: str = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dense: str | None = None,
    proxy: str | None = None,
    texts: bool = False,
) -> Clip:
    """Load a model, ready to be asked.

    Args:
        model: a shipped model's name, a model directory, a run folder, or a source such as
            ``open_clip:ViT-B-16/openai``; ``clippy models`` lists them.
        device: auto, cpu, cuda, cuda:N or mps.
        dense: attention of the last block where patches are wanted, for models not trained for patches: plain,
            maskclip, sclip, naclip or proxyclip.
        proxy: source of the model whose patches steer proxyclip.
        texts: refuse, before anything is loaded, a model that cannot read texts.

    Raises:
        ClippyError: no such model, weights that are not at hand, a dense mode that the model does not have.

    >>> load("clippy-ti").name
    'clippy-ti'
    """
    if texts:
        check_source(model, texts=True)
    return Clip(ModelChoice(load_model(model, device=device, dense=dense, proxy=proxy), model, dense, proxy))


def sample_photo() -> Path:
    """Path of a photo in the public domain that comes with the package: a raccoon in grass, 1024x768 pixels.

    >>> sample_photo().name
    'raccoon.jpg'
    """
    return Path(str(resources.files("clippy_cli") / "assets" / "samples" / "raccoon.jpg"))
