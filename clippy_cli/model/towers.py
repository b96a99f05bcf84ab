"""Which image tower a trunk's name asks for."""

from __future__ import annotations

from timm.models import get_arch_name, is_model_in_modules

from clippy_cli.model.config import ImageTowerConfig
from clippy_cli.model.conv_tower import ConvTower
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.model.vit_tower import VitTower


def build_image_tower(config: ImageTowerConfig, embed_dim: int) -> ImageTower:
    """A convolutional tower for timm's EfficientNets, a vision transformer for all else; ClippyError as theirs."""
    convolutional = is_model_in_modules(get_arch_name(config.trunk), {"efficientnet"})
    return ConvTower(config, embed_dim) if convolutional else VitTower(config, embed_dim)
