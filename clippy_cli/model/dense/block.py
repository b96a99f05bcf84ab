"""A transformer block taken apart, and put together again the way a dense mode wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense.attention import correlative_attention, neighbour_attention, proxy_attention
from clippy_cli.model.pooling import at_least_float32

MODES = ("plain", "maskclip", "sclip", "naclip", "proxyclip")
_ATTENTION_ALONE = ("naclip", "proxyclip")


@dataclass(frozen=True)
class OpenBlock:
    """A pre-norm block and what it makes of one batch of tokens.

    Attributes:
        queries, keys, values: (B,M,T,d), normed as the block norms them.
        join: (B,M,T,d) -> (B,T,width), heads side by side, output projection, layer scale; no residual.
        feed_forward: (B,T,width) -> (B,T,width), the second branch; no residual.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    join: Callable[[Tensor], Tensor]
    feed_forward: Callable[[Tensor], Tensor]


def run_block(
    tokens: Tensor,
    block: OpenBlock,
    mode: str = "plain",
    *,
    grid: tuple[int, int],
    num_prefix: int,
    proxy: Tensor | None = None,
) -> Tensor:
    """(B,P+N,width) in, (B,P+N,width) out, by the attention that ``mode`` names.

    plain: as trained. maskclip: every token's own value (arXiv 2112.01071; residual and feed-forward stay, as in the
    authors' code for ViT). sclip: residual and feed-forward stay. naclip, proxyclip: the attention branch
    alone. ``proxy`` (B,h',w',F') is resized to the grid; the authors resize the values to the proxy's grid instead.
    """
    if mode == "plain":
        mixed = F.scaled_dot_product_attention(block.queries, block.keys, block.values)
    elif mode == "maskclip":
        mixed = block.values
    elif mode == "sclip":
        mixed = correlative_attention(block.queries, block.keys, block.values)
    elif mode == "naclip":
        mixed = neighbour_attention(block.keys, block.values, grid, num_prefix)
    else:
        assert proxy is not None  # check_mode
        mixed = proxy_attention(resize_features(proxy, grid), block.values, num_prefix)
    added = block.join(mixed)
    if mode in _ATTENTION_ALONE:
        return added
    tokens = tokens + added
    return tokens + block.feed_forward(tokens)


def check_mode(mode: str, proxy: object | None) -> None:
    """ClippyError for an unknown mode, for proxyclip without a proxy, and for a proxy that nothing would use."""
    if mode not in MODES:
        raise ClippyError(f"No dense mode {mode!r}; there are {', '.join(MODES)}.", "Check --dense.")
    if mode == "proxyclip" and proxy is None:
        raise ClippyError(
            "The dense mode proxyclip takes its attention from another model, and none was given.",
            "Name one, such as: --proxy timm:vit_small_patch16_224.dino",
        )
    if mode != "proxyclip" and proxy is not None:
        raise ClippyError(f"The dense mode {mode} uses no proxy.", "Leave the proxy out, or pass --dense proxyclip.")


def patch_grid(images: Tensor, patch: tuple[int, int]) -> tuple[int, int]:
    """Patch grid (h,w) of (B,3,H,W); ClippyError where a side is no multiple of the patch."""
    height, width = images.shape[-2:]
    if height < patch[0] or width < patch[1] or height % patch[0] or width % patch[1]:
        raise ClippyError(
            f"An image of {height}x{width} pixels does not split into patches of {patch[0]}x{patch[1]}.",
            f"Resize the sides to multiples of {patch[0]} and {patch[1]}.",
        )
    return height // patch[0], width // patch[1]


def resize_features(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B,h',w',F) -> (B,h,w,F), bilinear, antialiased where the grid gets coarser."""
    if features.shape[1:3] == grid:
        return features
    planes = at_least_float32(features).permute(0, 3, 1, 2)  # (B,h',w',F) -> (B,F,h',w')
    return F.interpolate(planes, size=grid, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
