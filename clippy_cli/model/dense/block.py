"""A transformer block taken apart, and put together again the way a dense mode wants it.

Shapes: B batch, M heads, T = P+N tokens, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clippy_cli.model.choices import DenseMode
from clippy_cli.model.dense.attention import correlative_attention, neighbour_attention, proxy_attention
from clippy_cli.model.pooling import at_least_float32


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


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a block lie: ``num_prefix`` of them first, then the patches of ``grid`` (h,w), row by row.

    ``proxy`` (B,h',w',F') are another model's patches of the same images, or None.
    """

    grid: tuple[int, int]
    num_prefix: int
    proxy: Tensor | None = None


Mix = Callable[[OpenBlock, Layout], Tensor]
_MIXES: dict[DenseMode, Mix] = {}
_ATTENTION_ALONE: set[DenseMode] = set()


def mixes(mode: DenseMode, *, attention_alone: bool = False) -> Callable[[Mix], Mix]:
    """Register what takes the place of attention, (B,M,T,d), in a mode.

    ``attention_alone`` leaves the residual and the feed-forward branch out.
    """

    def register(mix: Mix) -> Mix:
        _MIXES[mode] = mix
        if attention_alone:
            _ATTENTION_ALONE.add(mode)
        return mix

    return register


def run_block(tokens: Tensor, block: OpenBlock, layout: Layout, mode: DenseMode = DenseMode.PLAIN) -> Tensor:
    """(B,P+N,width) in, (B,P+N,width) out, by the attention that ``mode`` names."""
    added = block.join(_MIXES[mode](block, layout))
    if mode in _ATTENTION_ALONE:
        return added
    tokens = tokens + added
    return tokens + block.feed_forward(tokens)


@mixes(DenseMode.PLAIN)
def _as_trained(block: OpenBlock, layout: Layout) -> Tensor:
    return F.scaled_dot_product_attention(block.queries, block.keys, block.values)


@mixes(DenseMode.MASKCLIP)
def _own_value(block: OpenBlock, layout: Layout) -> Tensor:
    """Every token's own value (arXiv 2112.01071); residual and feed-forward stay, as in the authors' code for ViT."""
    return block.values


@mixes(DenseMode.SCLIP)
def _correlative(block: OpenBlock, layout: Layout) -> Tensor:
    return correlative_attention(block.queries, block.keys, block.values)


@mixes(DenseMode.NACLIP, attention_alone=True)
def _neighbour_aware(block: OpenBlock, layout: Layout) -> Tensor:
    return neighbour_attention(block.keys, block.values, layout.grid, layout.num_prefix)


@mixes(DenseMode.PROXYCLIP, attention_alone=True)
def _by_proxy(block: OpenBlock, layout: Layout) -> Tensor:
    """The proxy is resized to the grid; the authors resize the values to the proxy's grid instead."""
    assert layout.proxy is not None  # check_mode
    return proxy_attention(resize_features(layout.proxy, layout.grid), block.values, layout.num_prefix)


def resize_features(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B,h',w',F) -> (B,h,w,F), bilinear, antialiased where the grid gets coarser."""
    if features.shape[1:3] == grid:
        return features
    planes = at_least_float32(features).permute(0, 3, 1, 2)  # (B,h',w',F) -> (B,F,h',w')
    return F.interpolate(planes, size=grid, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
