"""The image tower over a timm EfficientNet, the image side of ALIGN (arXiv 2102.05918)."""

from __future__ import annotations

from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import Pooling
from clippy_cli.model.compat.timm import EfficientNet
from clippy_cli.model.config import ImageTowerConfig
from clippy_cli.model.image_tower import ImageTower, create_trunk, token_projection


class ConvTower(ImageTower):
    """The last feature map, one token a cell. Patches are as large as the trunk's total stride, 32 pixels."""

    num_prefix_tokens = 0
    blocks = ()
    can_drop_tokens = False
    takes_patches = False

    def __init__(self, config: ImageTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = create_trunk(config)
        if not isinstance(self.trunk, EfficientNet):
            raise ClippyError(f"The trunk {config.trunk!r} is no EfficientNet.", "Choose an efficientnet_* model.")
        if Pooling(config.pooling).needs_class_token:
            raise ClippyError(
                f"image.pooling is {config.pooling}, but {config.trunk} is convolutional and has no class token.",
                "Use avg or max.",
            )
        if config.head_blocks:
            raise ClippyError(
                f"image.head_blocks is {config.head_blocks}, but {config.trunk} is convolutional.",
                "Leave image.head_blocks out, or choose a vision transformer.",
            )
        if config.blocks:
            raise ClippyError(
                f"image.blocks is {list(config.blocks)}, but {config.trunk} has no transformer blocks.",
                "Leave image.blocks out.",
            )
        self.patch_size = self.trunk.feature_info[-1]["reduction"]
        self.feature_dim = self.trunk.num_features
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
        self.has_batch_norm = any(isinstance(module, kinds) for module in self.trunk.modules())
        self.projection = token_projection(config, self.feature_dim, embed_dim)

    def features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W) -> (B,N,F), cells row by row; ClippyError where ``keep`` is given."""
        if keep is not None:
            raise ClippyError(
                f"Token sub-sampling needs a vision transformer; {self.config.trunk} is convolutional.",
                "Set the drop rate to 0: --set train.drop_rate=0",
            )
        self.grid_size(images.shape[-2], images.shape[-1])
        cells: Tensor = self.trunk.forward_features(images)
        return cells.flatten(2).transpose(1, 2)  # (B,F,h,w) -> (B,N,F)
