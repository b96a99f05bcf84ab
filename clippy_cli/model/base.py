"""The one face that commands and evaluators know, whichever model is behind it.

Shape legend of the whole package: B batch, N patch tokens, P prefix tokens, F trunk features, D joint
embedding, C classes, K texts, G groups, h,w patch grid, H,W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError


def patch_grid(height: int, width: int, patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Patch grid (h,w) of an image of H x W pixels; ClippyError where a side is no multiple of the patch's."""
    down, across = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    if height < 1 or width < 1 or height % down or width % across:
        raise ClippyError(
            f"An image of {height}x{width} pixels does not split into patches of {down}x{across}.",
            f"Resize the sides to multiples of {down}{'' if down == across else f' and {across}'}.",
        )
    return height // down, width // across


class NonFiniteError(ClippyError):
    """A model gave embeddings that are NaN or inf."""


def finite(vectors: Tensor, model: str) -> Tensor:
    """(...,D) ``vectors`` as they are; NonFiniteError, naming ``model``, where the norm of any is NaN or inf.

    NaN ties with nothing, and a vector whose norm overflows becomes zero once it is scaled to unit norm: every label,
    group and figure made of either is wrong. One norm over all values, which any of them would spoil.
    """
    if not torch.compiler.is_exporting() and not bool(torch.isfinite(torch.linalg.vector_norm(vectors.float()))):
        wrong = int((~torch.isfinite(torch.linalg.vector_norm(vectors.float(), dim=-1))).sum())
        if wrong:
            count = vectors.numel() // vectors.shape[-1]
            raise NonFiniteError(
                f"{model} gives embeddings that are NaN or inf: {wrong:,} of {count:,} vectors.",
                "Its weights do not fit its architecture, or overflow in this precision. Take other weights.",
            )
    return vectors


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the model's input.

    Attributes:
        mean, std: per-channel statistics of RGB values in [0, 1].
        patch_size: side of a patch in pixels; image sides must be multiples of it.
        resolution: native training resolution in pixels (the side of a square).
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch_size: int
    resolution: int

    def normalize(self, images: Tensor) -> Tensor:
        """(...,3,H,W) uint8 or float RGB in [0, 255] -> the same shape in float32, zero mean and unit variance."""
        mean = torch.tensor(self.mean, device=images.device, dtype=torch.float32).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device, dtype=torch.float32).view(3, 1, 1)
        return (images.to(torch.float32) / 255.0 - mean) / std


@dataclass(frozen=True)
class InferenceDefaults:
    """What inference uses where the user says nothing.

    Attributes:
        resolution: short side in pixels for dense inference.
        templates: name of a prompt template set (see ``clippy_cli.data.prompts``).
        logit_scale: factor that turns a cosine into a logit before a softmax over labels.
    """

    resolution: int
    templates: str
    logit_scale: float


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Images and texts in one embedding space, with one embedding a patch."""

    preprocess: Preprocess

    @property
    def name(self) -> str:
        """What tables and reports call it."""
        ...

    @property
    def defaults(self) -> InferenceDefaults:
        """Resolution, templates and logit scale where the user says nothing."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs are expected there."""
        ...

    @property
    def reads_texts(self) -> bool:
        """Whether there is a text tower; without one ``embed_texts`` and ``score_images`` raise ClippyError."""
        ...

    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) normalized pixels -> (B,D), unit norm."""
        ...

    def embed_patches(self, images: Tensor) -> Tensor:
        """(B,3,H,W) normalized pixels -> (B,h,w,D), unit norm; of another width for a :class:`SplitTexts`."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), unit norm; any K, in batches of the model's own choosing."""
        ...

    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        """(B,3,H,W) normalized pixels, (K,D) text embeddings -> (B,K) scores in [-1, 1], higher is closer."""
        ...


@runtime_checkable
class SplitTexts(Protocol):
    """A model whose patches are compared with other vectors of a text than its images are."""

    def embed_patch_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), as wide as a patch, unit norm."""
        ...


def embed_patch_texts(model: VisionLanguageModel, texts: Sequence[str]) -> Tensor:
    """K strings -> (K,D), unit norm: what the model's patches are compared with, ``embed_texts`` for most models."""
    return model.embed_patch_texts(texts) if isinstance(model, SplitTexts) else model.embed_texts(texts)


@runtime_checkable
class MeansOfPrompts(Protocol):
    """A model whose text embeddings are not averaged over templates at the end, as unit vectors, but earlier."""

    def embed_prompt_means(self, prompts: Sequence[str], templates: int) -> Tensor:
        """K names x T templates, one name after the other -> (K,D), unit norm."""
        ...


@dataclass(frozen=True)
class GroupedImages:
    """Images sorted into groups by the model itself.

    Attributes:
        groups: (B,G,D) embeddings of the groups, unit norm.
        assignment: (B,G,h,w) how far each patch belongs to each group, adding up to 1 over the groups.
        pooled: (B,D) embeddings of the whole images as they were given, unit norm.
    """

    groups: Tensor
    assignment: Tensor
    pooled: Tensor


@runtime_checkable
class GroupsPatches(Protocol):
    """A model that sorts patches into groups by itself, each with an embedding, as GroupViT does."""

    def embed_groups(self, images: Tensor) -> GroupedImages:
        """(B,3,H,W) normalized pixels, sides multiples of the patch -> their groups."""
        ...
