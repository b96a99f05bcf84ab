"""timm: vision transformers from the inside, weights without a network, trunks of any image size.

Shapes: see ``model/base.py``; M heads of width d, T = P+N tokens.
"""

from __future__ import annotations

from typing import Any

import timm
from timm.layers import Attention, Format, PatchEmbed, SwiGLU
from timm.models import get_arch_name, is_model_in_modules
from timm.models.efficientnet import EfficientNet
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as eva_filter
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.compat import hub
from clippy_cli.model.vit import embed, embed_kept, embed_masked, head_count, join, open_block

_ALIGNED = 64
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

__all__ = [
    "EfficientNet",
    "Eva",
    "VisionTransformer",
    "embed",
    "embed_kept",
    "embed_masked",
    "head_count",
    "open_block",
]


def is_efficientnet(name: str) -> bool:
    """Whether the architecture of that name, perhaps with a tag, is one of timm's EfficientNets."""
    return bool(is_model_in_modules(get_arch_name(name), {"efficientnet"}))


def is_rotary(name: str) -> bool:
    """Whether the architecture of that name is one of timm's transformers with rotary positions, such as DINOv3."""
    return bool(is_model_in_modules(get_arch_name(name), {"eva"}))


def swiglu_block(width: int, heads: int) -> nn.Module:
    """A pre-norm block with SwiGLU, 8/3 widths up to a multiple of 64, and layer scale from 1e-5: dino.txt's head."""
    hidden = int(4 * width * 2 / 3)
    hidden += -hidden % _ALIGNED
    ratio = (hidden + 0.5) / width  # timm rounds the product down
    block: nn.Module = Block(
        width, heads, ratio, init_values=1e-5, act_layer=nn.SiLU, norm_layer=nn.LayerNorm, mlp_layer=SwiGLU
    )
    return block


def pretrained_model(name: str, **arguments: Any) -> nn.Module:
    """``timm.create_model`` with pretrained weights, from the cache alone where there is no network."""
    with hub.hub_session() as local:
        settings = timm.get_pretrained_cfg(name, allow_unregistered=False) if local else None
        if settings is not None and settings.hf_hub_id:
            files = [settings.hf_hub_filename] if settings.hf_hub_filename else WEIGHT_FILES
            file = hub.download(settings.hf_hub_id, files, local_files_only=True)
            arguments["pretrained_cfg_overlay"] = {"file": str(file), "custom_load": False}
        model: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    return model


def fitted_state(trunk: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as the trunk names and shapes them, where timm knows how: its vision transformers."""
    if isinstance(trunk, Eva):
        renamed: dict[str, Tensor] = eva_filter(state, trunk)
        return renamed
    if not isinstance(trunk, VisionTransformer):
        return state
    fitted: dict[str, Tensor] = checkpoint_filter_fn(state, trunk)
    return fitted


def can_resample(trunk: Any) -> bool:
    """Whether the trunk has a position table that :func:`embed` resamples by any rule; a rotary one has none."""
    return (
        isinstance(trunk, VisionTransformer)
        and type(trunk)._pos_embed is VisionTransformer._pos_embed
        and trunk.pos_embed is not None
    )


def can_embed_kept(trunk: VisionTransformer) -> bool:
    """Whether :func:`embed_kept` repeats what the trunk does: kin of the plain transformer have ways of their own."""
    return (
        type(trunk.patch_embed) is PatchEmbed
        and type(trunk)._pos_embed is VisionTransformer._pos_embed
        and trunk.dynamic_img_size
    )


def place(trunk: VisionTransformer, patches: Tensor, positions: PositionResampling) -> Tensor:
    """(B,h,w,width) embedded patches -> (B,P+N,width) with prefix tokens and positions."""
    if positions is PositionResampling.TIMM or not can_resample(trunk) or not trunk.dynamic_img_size:
        tokens: Tensor = trunk._pos_embed(patches)
        return tokens
    h, w = patches.shape[1:3]
    return join(trunk, patches.flatten(1, 2), (h, w), positions)


def take_any_size(trunk: VisionTransformer) -> None:
    """Set what ``dynamic_img_size`` sets at construction: positions are resampled to each image."""
    trunk.dynamic_img_size = True
    trunk.patch_embed.strict_img_size = False
    trunk.patch_embed.flatten, trunk.patch_embed.output_fmt = False, Format.NHWC


def set_heads(trunk: VisionTransformer, heads: int) -> None:
    """Split each block's attention into another number of heads; the weights are the same."""
    for block in trunk.blocks:
        block.attn.num_heads, block.attn.head_dim = heads, trunk.embed_dim // heads
        block.attn.scale = block.attn.head_dim**-0.5


def pooled_alone(trunk: Any, patches: Tensor) -> Tensor:
    """(n,F) final features, one a place -> (n,F'): each pooled as if it were the image's only one."""
    if isinstance(trunk, VisionTransformer | Eva):
        pooled: Tensor = trunk.head(patches if trunk.attn_pool is None else trunk.attn_pool(patches[:, None]))
    else:
        pooled = trunk.forward_head(patches[:, :, None, None])  # (n,F,1,1)
    return pooled


def tokens_of(trunk: Any, tokens: Tensor) -> Tensor:
    """A vision transformer's tokens after the norm that it keeps for their average, where it has one."""
    normed: Tensor = trunk.fc_norm(tokens) if trunk.attn_pool is None else tokens
    return normed


def require_openable(trunk: VisionTransformer, number: int) -> None:
    """ClippyError unless the 1-based block is timm's plain pre-norm block with its plain attention."""
    block = trunk.blocks[number - 1]
    attention = getattr(block, "attn", None)
    if type(block) is not Block or type(attention) is not Attention or getattr(attention, "gate", None) is not None:
        raise ClippyError(
            f"Dense modes cannot take block {number} apart: a {type(block).__name__} with {type(attention).__name__}.",
            "Choose a plain vision transformer, or --dense plain.",
        )
