"""The image tower over a timm transformer with rotary positions, such as DINOv3 (arXiv 2508.10104)."""

from __future__ import annotations

from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import DenseMode, Pooling
from clippy_cli.model.compat import timm, timm_eva
from clippy_cli.model.config import ImageTowerConfig
from clippy_cli.model.dense.timm_vit import vit_tokens
from clippy_cli.model.image_tower import ImageTower, create_trunk, token_projection


class RotaryTower(ImageTower):
    """Patch embedding, blocks whose attention knows where patches are, final norm; no token is ever dropped."""

    can_drop_tokens = False
    takes_patches = False
    has_batch_norm = False

    def __init__(self, config: ImageTowerConfig, token_dim: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = create_trunk(config, dynamic_img_size=True)
        if not isinstance(self.trunk, timm.Eva):
            raise ClippyError(f"The trunk {config.trunk!r} has no rotary positions.", "Choose a vit_*_dinov3 model.")
        self.patch_size = self.trunk.patch_embed.patch_size[0]
        self.num_prefix_tokens = self.trunk.num_prefix_tokens
        depth = len(self.trunk.blocks)
        if config.blocks not in (None, (depth,)):
            raise ClippyError(
                f"image.blocks is {list(config.blocks)}; of {config.trunk} only the last block's tokens are read.",
                "Leave image.blocks out.",
            )
        self.blocks = (depth,)
        if Pooling(config.pooling).needs_class_token and self.num_prefix_tokens == 0:
            raise ClippyError(
                f"image.pooling is {config.pooling}, but {config.trunk} has no class token.", "Use max or avg."
            )
        self.feature_dim = self.trunk.embed_dim
        self.projection = token_projection(config, self.feature_dim, token_dim, timm.head_count(self.trunk))

    def features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W) -> (B,P+N,F) normed trunk tokens; ClippyError where ``keep`` is given."""
        if keep is not None:
            raise ClippyError(
                f"Token sub-sampling needs a plain vision transformer; {self.config.trunk} has rotary positions.",
                "Set the drop rate to 0: --set train.drop_rate=0",
            )
        self.grid_size(images.shape[-2], images.shape[-1])
        tokens: Tensor = self.trunk.forward_features(images)
        return tokens

    def require_dense(self, model: str) -> None:
        timm_eva.require_openable(self.trunk, len(self.trunk.blocks))

    def dense_features(self, images: Tensor, mode: DenseMode, proxy: Tensor | None) -> Tensor:
        return vit_tokens(self.trunk, images, mode, proxy)
