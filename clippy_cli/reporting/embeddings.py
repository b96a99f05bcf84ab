"""Embeddings of photos as results: one vector a photo, or one for each of its patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.inference.choices import DEFAULT_BATCH
from clippy_cli.inference.features import DecodedPhoto, dense_embeddings, model_input
from clippy_cli.inference.requests import Look
from clippy_cli.notices import Notice
from clippy_cli.reporting.answers import Failure, answer_all
from clippy_cli.reporting.model_choice import ModelChoice


@dataclass(frozen=True)
class Embedding:
    """What a model makes of one photo.

    Attributes:
        source: path or name of the photo.
        values: (D,) float32, unit norm: the whole photo; or (h,w,D), unit norm along D: its patches.
        settings: everything that the values depend on, ready for JSON.
        notices: what was assumed when the photo was read.

    >>> import clippy_cli as clippy
    >>> [found] = clippy.load().embed_many([clippy.sample_photo()], patches=True)
    >>> found.values.shape  # 224x304 pixels in patches of 16
    (14, 19, 384)
    """

    source: str
    values: NDArray[np.float32] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    notices: tuple[Notice, ...] = field(default=(), kw_only=True, repr=False)


class EmbedAnswer:
    """Photos -> :class:`Embedding`, of whole photos or of patches."""

    def __init__(self, choice: ModelChoice, *, patches: bool, resolution: int | None) -> None:
        look = Look.read({"resolution": resolution})
        self.model, self.patches = choice.model, patches
        native = choice.model.defaults.resolution if patches else choice.model.preprocess.resolution
        self.short_side = look.resolution or native
        self.settings = {**choice.settings("embed"), "patches": patches, "resolution": self.short_side}

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """B images of one size -> (B,D), or (B,h,w,D) patches; float32 on the CPU."""
        if self.patches:
            return dense_embeddings(self.model, images).cpu()
        return self.model.embed_images(model_input(self.model, images)).float().cpu()

    def result(self, photo: DecodedPhoto, output: Tensor) -> Embedding:
        """One photo and its row -> its embedding."""
        return Embedding(photo.key, output.numpy(), self.settings, notices=photo.notices)


class EmbedsPhotos:
    """The part of a loaded model that gives embeddings."""

    _choice: ModelChoice

    def embed_many(
        self,
        photos: Sequence[object],
        *,
        patches: bool = False,
        resolution: int | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[Embedding | Failure]:
        """Embeddings of many photos, in order: decoded ahead in threads, those of one size encoded together.

        Args:
            photos: paths, Pillow images, arrays or tensors.
            patches: one vector for each patch, (h,w,D), instead of one for the photo, (D,).
            resolution: short side in pixels, aspect kept; None for the model's training resolution, or for patches the
                one that it segments at.
            batch_size: photos of one size in a forward pass.

        A photo that cannot be used gives a :class:`Failure` in its place.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> [found.values.shape for found in clip.embed_many([clippy.sample_photo()])]
        [(384,)]
        """
        answer = self.prepare_embeddings(patches=patches, resolution=resolution)
        return answer_all(self._choice.model, answer, photos, lambda found, place: found, batch_size=batch_size)

    def prepare_embeddings(self, *, patches: bool = False, resolution: int | None = None) -> EmbedAnswer:
        """What ``answer`` takes for embeddings; see :meth:`embed_many`."""
        return EmbedAnswer(self._choice, patches=patches, resolution=resolution)
