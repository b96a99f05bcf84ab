"""The image tower: a timm vision transformer whose every token is carried into the joint space."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.config import ImageTowerConfig
from clippy_cli.model.sampling import gather_tokens


class ImageTower(nn.Module):
    """Trunk, final norm, optional per-token projection; pooling comes after, outside.

    The projection is applied to each token *before* pooling: project-then-max is not max-then-project, and only
    the former leaves patch embeddings in the joint space (CLIPpy, section 3.2).
    """

    def __init__(self, config: ImageTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        arguments: dict[str, Any] = {"dynamic_img_size": True, **config.trunk_args}
        try:
            self.trunk = timm.create_model(config.trunk, pretrained=False, num_classes=0, global_pool="", **arguments)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ClippyError(
                f"timm cannot build the trunk {config.trunk!r} with {arguments}: {error}",
                "List trunks with: python -c \"import timm; print(timm.list_models('vit*'))\"",
            ) from error
        if not hasattr(self.trunk, "blocks") or not hasattr(self.trunk, "_pos_embed"):
            raise ClippyError(f"The trunk {config.trunk!r} is no plain vision transformer.", "Choose a vit_* model.")
        self.patch_size: int = self.trunk.patch_embed.patch_size[0]
        self.num_prefix_tokens: int = self.trunk.num_prefix_tokens
        depth = len(self.trunk.blocks)
        self.blocks: tuple[int, ...] = config.blocks or (depth,)
        if any(not 1 <= block <= depth for block in self.blocks):
            raise ClippyError(f"image.blocks is {list(self.blocks)}; {config.trunk} has blocks 1 to {depth}.")
        if config.pooling == "cls" and self.num_prefix_tokens == 0:
            raise ClippyError(f"image.pooling is cls, but {config.trunk} has no class token.", "Use max or avg.")
        self.feature_dim: int = self.trunk.embed_dim * len(self.blocks)
        self.projection = _token_projection(config, self.feature_dim, embed_dim)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Patch grid (h, w) of an image of H x W pixels; ClippyError where a side is no multiple of the patch."""
        if height < 1 or width < 1 or height % self.patch_size or width % self.patch_size:
            raise ClippyError(
                f"An image of {height}x{width} pixels does not split into patches of {self.patch_size}.",
                f"Resize both sides to multiples of {self.patch_size}.",
            )
        return height // self.patch_size, width // self.patch_size

    def features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W) -> (B,P+N,F) normed trunk tokens, the chosen blocks side by side.

        ``keep`` (B,K) selects patch tokens right after patch and position embedding, so that dropped tokens cost
        nothing in the blocks; prefix tokens always stay. The position table is resampled to the image's grid.
        """
        self.grid_size(images.shape[-2], images.shape[-1])
        tokens = self.trunk._pos_embed(self.trunk.patch_embed(images))  # (B,P+N,width)
        if keep is not None:
            tokens = gather_tokens(tokens, keep, self.num_prefix_tokens)  # (B,P+K,width)
        tokens = self.trunk.norm_pre(tokens)
        taken = []
        for number, block in enumerate(self.trunk.blocks[: max(self.blocks)], start=1):
            tokens = block(tokens)
            if number in self.blocks:
                taken.append(self.trunk.norm(tokens))
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=-1)

    def project(self, features: Tensor) -> Tensor:
        """(B,P+N,F) -> (B,P+N,D), each token by itself."""
        projected: Tensor = self.projection(features)
        return projected


def _token_projection(config: ImageTowerConfig, feature_dim: int, embed_dim: int) -> nn.Module:
    if config.projection == "none":
        if feature_dim != embed_dim:
            raise ClippyError(
                f"image.projection is none, but {config.trunk} gives {feature_dim} features; embed_dim is {embed_dim}.",
                "Set image.projection: linear, or make the widths equal.",
            )
        return nn.Identity()
    if config.projection == "linear":
        return nn.Linear(feature_dim, embed_dim, bias=False)
    assert config.hidden_dim is not None  # ModelConfig checks it
    return nn.Sequential(nn.Linear(feature_dim, config.hidden_dim), nn.GELU(), nn.Linear(config.hidden_dim, embed_dim))
