"""What every foreign model has in common, whichever library holds its weights."""

from __future__ import annotations

import copy
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clippy_cli.errors import first_line
from clippy_cli.model.base import InferenceDefaults, Preprocess, finite, patch_grid
from clippy_cli.model.choices import PositionResampling, Precision
from clippy_cli.model.dense.dense import PLAIN, Dense
from clippy_cli.model.pooling import normalized
from clippy_cli.model.precision import in_precision
from clippy_cli.model.text_batches import embed_by_length
from clippy_cli.model.weight_files import check_filled, check_finite

DENSE_RESOLUTION = 448  # the resolution at which the paper compares models densely
TEMPLATES = "photo"


class ForeignModel(ABC):
    """A :class:`~clippy_cli.model.base.VisionLanguageModel` over a module of another library.

    Subclasses give ``image_vectors``, ``patch_vectors`` and ``text_vectors``, of any norm; no gradient flows. Those
    that can resample their position table by any rule set ``positions`` to their library's, and follow it.
    """

    reads_texts = True
    positions: PositionResampling | None = None

    def __init__(self, name: str, module: nn.Module, preprocess: Preprocess, logit_scale: float) -> None:
        self._name = name
        self.dense = PLAIN
        self.precision = Precision.FP32
        self.module = module.float().eval().requires_grad_(False)
        check_finite(module.named_parameters(), f"The weights of {name}")
        check_filled(module.named_parameters(), f"The weights of {name}")
        self.preprocess = preprocess
        self.defaults = InferenceDefaults(max(DENSE_RESOLUTION, preprocess.resolution), TEMPLATES, logit_scale)

    @property
    def name(self) -> str:
        return self.dense.describe(self._name)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,D), unit norm."""
        return normalized(finite(self._in_precision(self.image_vectors, images), self.name))

    @torch.no_grad()
    def embed_patches(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,h,w,D), unit norm; ClippyError where a side is no multiple of the patch."""
        patch_grid(images.shape[-2], images.shape[-1], self.preprocess.patch_size)
        return normalized(finite(self._in_precision(self.patch_vectors, images), self.name))

    def _in_precision(self, vectors: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return in_precision(self.precision, images.device, lambda: vectors(images))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), unit norm; an empty sequence gives (0,D)."""
        if not texts:
            return self.embed_texts([""])[:0]
        return embed_by_length(
            lambda rows: normalized(finite(self.text_vectors([texts[row] for row in rows]), self.name)),
            self.text_lengths(texts),
        )

    def text_lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each of K texts where a batch is padded to its longest; all equal, as here, where it is not."""
        return [0] * len(texts)

    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        """(B,3,H,W), (K,D) text embeddings -> (B,K) cosines in [-1, 1]."""
        return self.embed_images(images) @ texts.T

    @abstractmethod
    def image_vectors(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,D)."""

    @abstractmethod
    def patch_vectors(self, images: Tensor) -> Tensor:
        """(B,3,H,W), sides multiples of the patch -> (B,h,w,D)."""

    @abstractmethod
    def text_vectors(self, texts: list[str]) -> Tensor:
        """K strings -> (K,D)."""

    def view(self, dense: Dense | None = None, positions: PositionResampling | None = None) -> Self:
        """The same weights with patches by ``dense``, or another rule of positions; this model stays as it is."""
        other = copy.copy(self)
        other.dense = dense or self.dense
        other.positions = positions or self.positions
        return other

    def with_positions(self, rule: PositionResampling) -> Self:
        """A view whose position table is resampled by ``rule``; for models that have ``positions``."""
        return self.view(positions=rule)

    def with_precision(self, precision: Precision) -> Self:
        """A view whose image side computes in ``precision``."""
        other = self.view()
        other.precision = precision
        return other

    def native_square(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,3,R,R): the native square, for towers whose pooled vector was trained at one size only."""
        return resized(images, self.preprocess.resolution, self.preprocess.resolution)


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(B,3,H,W) -> (B,3,height,width) by antialiased bicubic interpolation; unchanged where the size fits."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False)


def complaint(error: BaseException) -> str:
    """What a library's error says, in one line, without torch's advice to run the code in a file."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no weight file, or holds code, which is not run"
    return first_line(error)
