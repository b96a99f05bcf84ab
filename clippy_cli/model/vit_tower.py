"""The image tower over a vision transformer, timm's or :mod:`clippy_cli.model.vit`'s."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import DenseMode, Pooling, PositionResampling
from clippy_cli.model.config import ImageTowerConfig
from clippy_cli.model.image_tower import ImageTower, create_trunk, token_projection
from clippy_cli.model.sampling import gather_patches, gather_tokens
from clippy_cli.model.vit import PlainViT, library_of


class VitTower(ImageTower):
    """Patch and position embedding, blocks, final norm. The position table is resampled to each image's grid.

    The rule is the configuration's, everywhere: kept, masked and dense patches, in training and at inference.
    """

    can_drop_tokens = True
    has_batch_norm = False

    def __init__(self, config: ImageTowerConfig, embed_dim: int, trunk: PlainViT | None = None) -> None:
        """``trunk`` is one whose weights are to be loaded; None lets timm make it, with random weights."""
        super().__init__()
        self.config = config
        self.trunk = _timm_trunk(config) if trunk is None else trunk
        self.patch_size = self.trunk.patch_embed.patch_size[0]
        if min(self.trunk.patch_embed.grid_size) < 1:
            raise ClippyError(
                f"The trunk {config.trunk!r} has no patch: its images are smaller than {self.patch_size} pixels.",
                "Check img_size and patch_size in image.trunk_args.",
            )
        self.num_prefix_tokens = self.trunk.num_prefix_tokens
        depth = len(self.trunk.blocks)
        self.blocks = config.blocks or (depth,)
        if any(not 1 <= block <= depth for block in self.blocks):
            raise ClippyError(f"image.blocks is {list(self.blocks)}; {config.trunk} has blocks 1 to {depth}.")
        if Pooling(config.pooling).needs_class_token and self.num_prefix_tokens == 0:
            raise ClippyError(
                f"image.pooling is {config.pooling}, but {config.trunk} has no class token.", "Use max or avg."
            )
        self.takes_patches = self._library.can_embed_kept(self.trunk)
        self.feature_dim = self.trunk.embed_dim * len(self.blocks)
        heads = self._library.head_count(self.trunk) * len(self.blocks)
        self.projection = token_projection(config, self.feature_dim, embed_dim, heads)

    @property
    def _library(self) -> ModuleType:
        return library_of(self.trunk)

    @property
    def positions(self) -> PositionResampling | None:
        return self.config.positions if self._library.can_resample(self.trunk) else None

    def features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W) -> (B,P+N,F) normed trunk tokens, the chosen blocks side by side.

        ``keep`` (B,K) selects patches, before they are embedded wherever the trunk allows it; prefix tokens always
        stay.
        """
        grid = self.grid_size(images.shape[-2], images.shape[-1])
        if keep is not None and self.takes_patches:
            return self.patch_features(gather_patches(images, keep, self.patch_size), keep, grid)
        tokens = self._library.embed(self.trunk, images, self.config.positions)  # (B,P+N,width)
        return self._blocks(tokens if keep is None else gather_tokens(tokens, keep, self.num_prefix_tokens))

    def patch_features(self, patches: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
        if not self.takes_patches:
            return super().patch_features(patches, keep, grid)
        return self._blocks(self._library.embed_kept(self.trunk, patches, keep, grid, self.config.positions))

    def require_dense(self, model: str) -> None:
        self._library.require_openable(self.trunk, max(self.blocks))

    def dense_features(self, images: Tensor, mode: DenseMode, proxy: Tensor | None) -> Tensor:
        from clippy_cli.model.dense.timm_vit import vit_tokens

        return vit_tokens(self.trunk, images, mode, proxy, blocks=self.blocks, positions=self.config.positions)

    def masked_features(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,P+N,F), with ``mask_token`` (width,) in the place of the ``masked`` (B,N) patches."""
        grid = self.grid_size(images.shape[-2], images.shape[-1])
        places = masked.view(len(images), *grid, 1)
        return self._blocks(self._library.embed_masked(self.trunk, images, places, mask_token, self.config.positions))

    def _blocks(self, tokens: Tensor) -> Tensor:
        """(B,P+K,width) embedded tokens -> (B,P+K,F)."""
        tokens = self.trunk.norm_pre(tokens)
        taken = []
        for number, block in enumerate(self.trunk.blocks[: max(self.blocks)], start=1):
            tokens = block(tokens)
            if number in self.blocks:
                taken.append(self.trunk.norm(tokens))
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=-1)


def _timm_trunk(config: ImageTowerConfig) -> Any:
    from clippy_cli.model.compat.timm import VisionTransformer

    trunk = create_trunk(config, dynamic_img_size=True)
    if not isinstance(trunk, VisionTransformer):
        raise ClippyError(
            f"The trunk {config.trunk!r} is no plain vision transformer.", "Choose a vit_* or efficientnet_* model."
        )
    return trunk
