"""Dense features of open_clip's own vision transformer (OpenAI, LAION, DataComp, MetaCLIP, ... weights)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense.block import OpenBlock, check_mode, patch_grid, run_block


def clip_patches(visual: VisionTransformer, images: Tensor, mode: str, proxy: Tensor | None = None) -> Tensor:
    """(B,3,H,W) normalised pixels -> (B,h,w,D) patches in the joint space, not normalised. Tokens are never dropped.

    ``mode`` says how the last block attends (see ``run_block``); its final norm and projection then meet every patch.
    Sides are multiples of the patch; the position table is resampled to the grid (bicubic, antialiased).
    ``proxy`` (B,h',w',F') is for proxyclip. ClippyError: wrong mode, proxy or size, or a tower that cannot be opened.
    """
    check_mode(mode, proxy)
    check_openable(visual)
    grid = patch_grid(images, visual.patch_size)
    tokens = _embedded(visual, images, grid)
    *earlier, last = visual.transformer.resblocks
    for block in earlier:  # taken apart as well: nn.MultiheadAttention would hold all (B,M,T,T) scores on a CPU
        tokens = run_block(tokens, _opened(block, tokens), grid=grid, num_prefix=1)
    tokens = run_block(tokens, _opened(last, tokens), mode, grid=grid, num_prefix=1, proxy=proxy)
    patches: Tensor = visual.ln_post(tokens[:, 1:])
    if visual.proj is not None:
        patches = patches @ visual.proj
    return patches.view(len(images), *grid, -1)  # (B,N,D) -> (B,h,w,D)


def check_openable(visual: Any) -> None:
    """ClippyError unless ``visual`` is a vision transformer whose norm and projection fit each patch."""
    if not isinstance(visual, VisionTransformer):
        raise ClippyError(f"Dense modes need open_clip's vision transformer, not its {type(visual).__name__}.")
    if visual.attn_pool is not None:
        raise ClippyError(
            "This tower pools by attention (CoCa): its patches never enter the joint space one by one.",
            "Choose a ViT with a class token or average pooling.",
        )
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise ClippyError(f"Dense modes cannot take a {type(block).__name__} apart.", "Choose a plain ViT.")


def _embedded(visual: VisionTransformer, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B,3,H,W) -> (B,1+N,width): the class token, then patches, with positions."""
    patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).mT  # (B,width,h,w) -> (B,N,width)
    prefix = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    table = resample_abs_pos_embed(
        visual.positional_embedding[None], list(grid), list(visual.grid_size), num_prefix_tokens=1
    )  # (1,1+N,width)
    tokens: Tensor = visual.ln_pre(torch.cat([prefix, patches], dim=1) + table.to(patches.dtype))
    return tokens


def _opened(block: ResidualAttentionBlock, tokens: Tensor) -> OpenBlock:
    attention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)  # (B,T,3*width)
    queries, keys, values = projected.view(*tokens.shape[:2], 3, attention.num_heads, -1).permute(
        2, 0, 3, 1, 4
    )  # (B,M,T,d)
    return OpenBlock(
        queries,
        keys,
        values,
        join=lambda heads: block.ls_1(attention.out_proj(heads.transpose(1, 2).flatten(2))),
        feed_forward=lambda mixed: block.ls_2(block.mlp(block.ln_2(mixed))),
    )
