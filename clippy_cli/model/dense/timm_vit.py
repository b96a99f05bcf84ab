"""Dense features of timm's vision transformer: CLIPpy's own trunk, SigLIP's and other CLIPs that timm holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import patch_grid
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.compat import timm
from clippy_cli.model.dense.block import Layout, run_block
from clippy_cli.model.dense.dense import check_mode


def vit_tokens(
    trunk: Any,
    images: Tensor,
    mode: str,
    proxy: Tensor | None = None,
    *,
    blocks: Sequence[int] | None = None,
    positions: PositionResampling = PositionResampling.TIMM,
) -> Tensor:
    """(B,3,H,W) normalized pixels -> (B,P+N,F) tokens after the final norm. Tokens are never dropped.

    ``blocks`` are 1-based, their tokens set side by side as in ``VitTower``; None takes the last. ``mode`` (see
    ``dense/block.py``) changes the last of them alone: the methods rewire the block whose output is read, and the
    others' tokens must stay what later blocks were trained on. ``proxy`` (B,h',w',F') is for proxyclip.
    ``positions`` says how the position table is resampled.
    """
    checked = check_mode(mode, proxy)
    grid = patch_grid(images.shape[-2], images.shape[-1], trunk.patch_embed.patch_size)
    if not trunk.dynamic_img_size and tuple(images.shape[-2:]) != tuple(trunk.patch_embed.img_size):
        raise ClippyError(
            f"This trunk takes images of {trunk.patch_embed.img_size} pixels alone, not {tuple(images.shape[-2:])}.",
            "Create it with dynamic_img_size=True.",
        )
    chosen = set(blocks or (len(trunk.blocks),))
    last = max(chosen)
    if checked is not DenseMode.PLAIN:
        timm.require_openable(trunk, last)
    layout = Layout(grid, trunk.num_prefix_tokens, proxy)
    tokens = trunk.norm_pre(timm.embed(trunk, images, positions))
    taken = []
    for number, block in enumerate(trunk.blocks[:last], start=1):
        if number == last and checked is not DenseMode.PLAIN:
            tokens = run_block(tokens, timm.open_block(block, tokens), layout, checked)
        else:
            tokens = block(tokens)
        if number in chosen:
            taken.append(trunk.norm(tokens))
    return torch.cat(taken, dim=-1)
