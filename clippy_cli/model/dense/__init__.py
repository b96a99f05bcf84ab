"""Dense patch features from models that were trained for whole images, by other attention in the last block."""

from clippy_cli.model.dense.block import MODES
from clippy_cli.model.dense.dense_clippy import with_dense_mode
from clippy_cli.model.dense.open_clip_vit import clip_patches
from clippy_cli.model.dense.proxy import dense_name, proxy_patches
from clippy_cli.model.dense.timm_vit import vit_tokens

__all__ = ["MODES", "clip_patches", "dense_name", "proxy_patches", "vit_tokens", "with_dense_mode"]
