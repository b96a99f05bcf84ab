"""What every foreign model has in common, whichever library holds its weights."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import InferenceDefaults, Preprocess, VisionLanguageModel
from clippy_cli.model.dense import dense_name, proxy_patches
from clippy_cli.model.pooling import normalized

TEXT_BATCH = 256
DENSE_RESOLUTION = 448  # the resolution at which the paper compares models densely
TEMPLATES = "photo"


@dataclass(frozen=True)
class Dense:
    """How patches are taken from the last block.

    Attributes:
        mode: one of ``clippy_cli.model.dense.MODES``.
        proxy: the model whose patches steer the attention; only for ``proxyclip``.
    """

    mode: str
    proxy: VisionLanguageModel | None = None

    def proxy_patches(self, images: Tensor, preprocess: Preprocess) -> Tensor | None:
        """(B,3,H,W) pixels normalised by ``preprocess`` -> (B,h',w',F') patches of the proxy, or None without one."""
        return None if self.proxy is None else proxy_patches(self.proxy, images, preprocess)

    def describe(self, name: str) -> str:
        """``name``, with the mode and its proxy where patches are not the plain ones."""
        return dense_name(name, self.mode, self.proxy)


class Source(ABC):
    """A :class:`~clippy_cli.model.base.VisionLanguageModel` over a module of another library.

    Kinds give ``image_vectors``, ``patch_vectors`` and ``text_vectors``, of any norm; no gradient flows.
    """

    reads_texts = True

    def __init__(self, name: str, module: nn.Module, preprocess: Preprocess, logit_scale: float) -> None:
        self.name = name
        self.module = module.float().eval().requires_grad_(False)
        self.preprocess = preprocess
        self.defaults = InferenceDefaults(max(DENSE_RESOLUTION, preprocess.resolution), TEMPLATES, logit_scale)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,D), unit norm."""
        return normalized(self.image_vectors(images))

    @torch.no_grad()
    def embed_patches(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,h,w,D), unit norm; ClippyError where a side is no multiple of the patch."""
        patch = self.preprocess.patch_size
        height, width = images.shape[-2:]
        if height < 1 or width < 1 or height % patch or width % patch:
            raise ClippyError(
                f"An image of {height}x{width} pixels does not split into patches of {patch}.",
                f"Resize both sides to multiples of {patch}.",
            )
        return normalized(self.patch_vectors(images))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), unit norm; an empty sequence gives (0,D)."""
        if not texts:
            return self.embed_texts([""])[:0]
        batches = [list(texts[start : start + TEXT_BATCH]) for start in range(0, len(texts), TEXT_BATCH)]
        return torch.cat([normalized(self.text_vectors(batch)) for batch in batches])

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

    def native_square(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,3,R,R): the native square, for towers whose pooled vector was trained at one size only."""
        return resized(images, self.preprocess.resolution, self.preprocess.resolution)


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(B,3,H,W) -> (B,3,height,width) by antialiased bicubic interpolation; unchanged where the size fits."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False)


def first_line(error: BaseException) -> str:
    """What a library's error says, without the rest of its text, or torch's advice to run the code in a file."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no weight file, or holds code, which is not run"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
