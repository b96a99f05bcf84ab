"""timm's Eva: vision transformers with rotary positions, from the inside (Perception Encoder, EVA-02, DINOv3).

Shapes: see ``model/base.py``; M heads of width d, T = P+N tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat
from timm.models.eva import Eva, EvaBlock
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense.block import OpenBlock

_ATTENTIONS = ("EvaAttention", "AttentionRope")  # by name: older timm has the first alone

__all__ = ["Eva"]


def take_any_size(trunk: Eva) -> None:
    """Set what ``dynamic_img_size`` sets at construction; a trunk whose rotations cannot follow keeps its one size."""
    rope = trunk.rope
    if rope is not None and not trunk.dynamic_img_size:
        if type(rope) is not RotaryEmbeddingCat or getattr(rope, "bands", None) is None:
            return
        rope._use_cached_embed = False
    trunk.dynamic_img_size = True
    trunk.patch_embed.strict_img_size = False
    trunk.patch_embed.flatten, trunk.patch_embed.output_fmt = False, type(trunk.patch_embed.output_fmt)("NHWC")


def embed(trunk: Eva, images: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """(B,3,H,W) -> (B,P+N,width) tokens before the blocks, and each block's rotations of the patches."""
    tokens, rotations = trunk._pos_embed(trunk.patch_embed(images))
    mixed = rotations is not None and getattr(trunk, "rope_mixed", False)
    return tokens, list(rotations) if mixed else [rotations] * len(trunk.blocks)


def require_openable(trunk: Eva, number: int) -> None:
    """ClippyError unless the 1-based block is timm's pre-norm block with one key and value a query."""
    block = trunk.blocks[number - 1]
    attention = getattr(block, "attn", None)
    plain = type(block) is EvaBlock and type(attention).__name__ in _ATTENTIONS
    if not plain or getattr(attention, "gate", None) is not None or getattr(attention, "num_kv_groups", 1) != 1:
        raise ClippyError(
            f"Dense modes cannot take block {number} apart: a {type(block).__name__} with {type(attention).__name__}.",
            "Choose a plain vision transformer, or --dense plain.",
        )


def open_block(block: Any, tokens: Tensor, rope: Tensor | None) -> OpenBlock:
    """A block that :func:`require_openable` lets pass, taken apart for (B,T,width) tokens; queries and keys rotated."""
    attention = block.attn
    prefix = attention.num_prefix_tokens
    halves = {"half": True} if getattr(attention, "rotate_half", False) else {}  # older timm has no such argument

    def with_heads(projected: Tensor) -> Tensor:
        return projected.view(*tokens.shape[:2], attention.num_heads, -1).transpose(1, 2)  # (B,T,M*d) -> (B,M,T,d)

    def rotated(heads: Tensor) -> Tensor:
        if rope is None:
            return heads
        patches = apply_rot_embed_cat(heads[:, :, prefix:], rope, **halves)
        return torch.cat([heads[:, :, :prefix], patches.to(heads.dtype)], dim=2)

    def join(heads: Tensor) -> Tensor:
        added: Tensor = attention.proj(attention.norm(heads.transpose(1, 2).flatten(2)))
        return added if block.gamma_1 is None else block.gamma_1 * added

    def feed_forward(mixed: Tensor) -> Tensor:
        added: Tensor = block.mlp(block.norm2(mixed))
        return added if block.gamma_2 is None else block.gamma_2 * added

    queries, keys, values = (with_heads(part) for part in _projected(attention, block.norm1(tokens)))
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return OpenBlock(rotated(queries), rotated(keys), values, join=join, feed_forward=feed_forward)


def _projected(attention: Any, normed: Tensor) -> tuple[Tensor, ...]:
    """(B,T,width) -> three of (B,T,M*d)."""
    if attention.qkv is None:
        return attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    return F.linear(normed, attention.qkv.weight, bias).chunk(3, dim=-1)
