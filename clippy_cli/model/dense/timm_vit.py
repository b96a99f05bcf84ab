"""Dense features of timm's vision transformers: CLIPpy's own trunk, SigLIP's, Perception Encoder's, DINOv3's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import patch_grid
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.dense.block import Layout, OpenBlock, blocks_read, run_block
from clippy_cli.model.dense.dense import check_mode
from clippy_cli.model.vit import PlainViT, library_of


class _Step(NamedTuple):
    """A block, as it is and taken apart, of (B,P+N,width) tokens."""

    run: Callable[[Tensor], Tensor]
    open: Callable[[Tensor], OpenBlock]


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
    others' tokens must stay what later blocks were trained on; resclip reads earlier blocks too. ``proxy``
    (B,h',w',F') is for proxyclip. ``positions`` says how a position table is resampled.
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
    read = blocks_read(checked, last)
    opened = [] if checked is DenseMode.PLAIN else [*read, last]
    library = _rotary(trunk) or library_of(trunk)
    for number in opened:
        library.require_openable(trunk, number)
    earlier: list[tuple[Tensor, Tensor]] = []
    layout = Layout(grid, trunk.num_prefix_tokens, proxy, earlier)
    tokens, steps = _embedded(trunk, images, positions)
    tokens = trunk.norm_pre(tokens)
    taken = []
    for number, step in enumerate(steps[:last], start=1):
        if number in opened:
            parts = step.open(tokens)
            if number in read:
                earlier.append((parts.queries, parts.keys))
            tokens = run_block(tokens, parts, layout, checked if number == last else DenseMode.PLAIN)
        else:
            tokens = step.run(tokens)
        if number in chosen:
            taken.append(trunk.norm(tokens))
    return torch.cat(taken, dim=-1)


def _rotary(trunk: Any) -> ModuleType | None:
    """The module that knows the trunk where its positions are rotations."""
    if isinstance(trunk, PlainViT):
        return None
    from clippy_cli.model.compat import timm_eva

    return timm_eva if isinstance(trunk, timm_eva.Eva) else None


def _embedded(trunk: Any, images: Tensor, positions: PositionResampling) -> tuple[Tensor, list[_Step]]:
    rotary, library = _rotary(trunk), library_of(trunk)
    if rotary is not None:
        tokens, ropes = rotary.embed(trunk, images)
        pairs = zip(trunk.blocks, ropes, strict=True)
        return tokens, [_Step(partial(block, rope=r), partial(rotary.open_block, block, rope=r)) for block, r in pairs]
    tokens = library.embed(trunk, images, positions)
    return tokens, [_Step(block, partial(library.open_block, block)) for block in trunk.blocks]
