"""The two graphs of an export: plain tensors in, unit vectors out. Shapes: see ``model/base.py``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clippy_cli.model.clippy import Clippy
from clippy_cli.model.pooling import normalized


class ImageGraph(nn.Module):
    """(B,3,H,W) float32 RGB in [0, 1] -> (B,h,w,D) patches, of D/2 under cls+avg, and (B,D) pooled, of unit norm.

    Mean and standard deviation are applied inside. Patches are centred where the model's configuration says so.
    """

    def __init__(self, model: Clippy) -> None:
        super().__init__()
        self.model = model
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(model.preprocess.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(model.preprocess.std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        h, w = self.model.image.grid_size(pixels.shape[-2], pixels.shape[-1])
        tokens = self.model.image_tokens((pixels - self.mean) / self.std)  # (B,P+N,D)
        patches = tokens[:, self.model.image.num_prefix_tokens :]
        if self.model.config.inference.centre_patches:
            patches = patches - self.model.patch_mean
        grid = normalized(patches).view(pixels.shape[0], h, w, -1)  # (B,N,D) -> (B,h,w,D)
        return grid, self.model.pool(tokens)


class TextGraph(nn.Module):
    """(K,L) int64 token ids, padded as the model's tokenizer pads -> (K,D), unit norm, for each of ``outputs``.

    ``patch_embeddings`` are those that patches are compared with, where they are others than the images': cls+avg.
    """

    def __init__(self, model: Clippy) -> None:
        super().__init__()
        self.model = model
        split = model.config.patch_dim != model.config.embed_dim
        self.outputs = ("embeddings", "patch_embeddings") if split else ("embeddings",)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, ...]:
        vectors = self.model.text.project(self.model.text.features(token_ids))  # (K,D), not normalized
        widths = (self.model.config.embed_dim, self.model.config.patch_dim)[: len(self.outputs)]
        return tuple(normalized(vectors[:, -width:]) for width in widths)
