"""Dense features of open_clip's own vision transformer (OpenAI, LAION, DataComp, MetaCLIP, ... weights)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clippy_cli.model.base import patch_grid
from clippy_cli.model.compat import open_clip
from clippy_cli.model.dense.block import Layout, run_block
from clippy_cli.model.dense.dense import check_mode


def clip_patches(visual: Any, images: Tensor, mode: str, proxy: Tensor | None = None) -> Tensor:
    """(B,3,H,W) normalized pixels -> (B,h,w,D) patches in the joint space, not normalized. Tokens are never dropped.

    ``mode`` says how the last block attends (see ``dense/block.py``); its final norm and projection then meet every
    patch. Sides are multiples of the patch; the position table is resampled to the grid (bicubic, antialiased).
    ``proxy`` (B,h',w',F') is for proxyclip. ClippyError: wrong mode, proxy or size, or a tower that cannot be opened.
    """
    checked = check_mode(mode, proxy)
    open_clip.require_openable(visual)
    grid = patch_grid(images.shape[-2], images.shape[-1], visual.patch_size)
    layout = Layout(grid, num_prefix=1, proxy=proxy)
    tokens = open_clip.embed(visual, images, grid)
    *earlier, last = visual.transformer.resblocks
    for block in earlier:  # taken apart as well: nn.MultiheadAttention would hold all (B,M,T,T) scores on a CPU
        tokens = run_block(tokens, open_clip.open_block(block, tokens), layout)
    tokens = run_block(tokens, open_clip.open_block(last, tokens), layout, checked)
    return open_clip.joint_patches(visual, tokens).view(len(images), *grid, -1)  # (B,N,D) -> (B,h,w,D)
