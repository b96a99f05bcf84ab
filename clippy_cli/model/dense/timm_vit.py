"""Dense features of timm's vision transformer: CLIPpy's own trunk, SigLIP's and other CLIPs that timm holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense.block import OpenBlock, check_mode, patch_grid, run_block


def vit_tokens(
    trunk: VisionTransformer,
    images: Tensor,
    mode: str,
    proxy: Tensor | None = None,
    *,
    blocks: Sequence[int] | None = None,
) -> Tensor:
    """(B,3,H,W) normalised pixels -> (B,P+N,F) tokens after the final norm. Tokens are never dropped.

    ``blocks`` are 1-based, their tokens set side by side as in ``VitTower``; None takes the last. ``mode`` (see
    ``run_block``) changes the last of them alone: the methods rewire the block whose output is read, and the others'
    tokens must stay what later blocks were trained on. ``proxy`` (B,h',w',F') is for proxyclip.
    """
    check_mode(mode, proxy)
    grid = patch_grid(images, trunk.patch_embed.patch_size)
    if not trunk.dynamic_img_size and tuple(images.shape[-2:]) != tuple(trunk.patch_embed.img_size):
        raise ClippyError(
            f"This trunk takes images of {trunk.patch_embed.img_size} pixels alone, not {tuple(images.shape[-2:])}.",
            "Create it with dynamic_img_size=True.",
        )
    chosen = set(blocks or (len(trunk.blocks),))
    last = max(chosen)
    if mode != "plain":
        check_openable(trunk, last)
    tokens = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images)))
    taken = []
    for number, block in enumerate(trunk.blocks[:last], start=1):
        if number == last and mode != "plain":
            opened = _opened(block, tokens)
            tokens = run_block(tokens, opened, mode, grid=grid, num_prefix=trunk.num_prefix_tokens, proxy=proxy)
        else:
            tokens = block(tokens)
        if number in chosen:
            taken.append(trunk.norm(tokens))
    return torch.cat(taken, dim=-1)


def check_openable(trunk: VisionTransformer, number: int) -> None:
    """ClippyError unless the 1-based block is timm's plain pre-norm block with its plain attention."""
    block = trunk.blocks[number - 1]
    attention = getattr(block, "attn", None)
    if type(block) is not Block or type(attention) is not Attention or getattr(attention, "gate", None) is not None:
        raise ClippyError(
            f"Dense modes cannot take block {number} apart: a {type(block).__name__} with {type(attention).__name__}.",
            "Choose a plain vision transformer, or --dense plain.",
        )


def _opened(block: Block, tokens: Tensor) -> OpenBlock:
    attention = block.attn
    projected = attention.qkv(block.norm1(tokens))  # (B,T,3*M*d)
    queries, keys, values = projected.view(*tokens.shape[:2], 3, attention.num_heads, -1).permute(
        2, 0, 3, 1, 4
    )  # (B,M,T,d)

    def join(heads: Tensor) -> Tensor:
        mixed = heads.transpose(1, 2).flatten(2)  # (B,M,T,d) -> (B,T,M*d)
        if hasattr(attention, "norm"):  # older timm has none
            mixed = attention.norm(mixed)
        added: Tensor = block.ls1(attention.proj(mixed))
        return added

    return OpenBlock(
        attention.q_norm(queries),
        attention.k_norm(keys),
        values,
        join=join,
        feed_forward=lambda mixed: block.ls2(block.mlp(block.norm2(mixed))),
    )
