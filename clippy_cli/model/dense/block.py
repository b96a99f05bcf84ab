"""A transformer block taken apart, and put together again the way a dense mode wants it.

Shapes: B batch, M heads, T = P+N tokens, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import DenseMode
from clippy_cli.model.dense.attention import (
    correlative_attention,
    neighbour_attention,
    proxy_attention,
    residual_attention,
)
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

    ``proxy`` (B,h',w',F') are another model's patches of the same images, or None. ``earlier`` are the queries and
    keys, each (B,M,T,d), of the blocks that the mode reads (see :func:`blocks_read`), first block first.
    """

    grid: tuple[int, int]
    num_prefix: int
    proxy: Tensor | None = None
    earlier: Sequence[tuple[Tensor, Tensor]] = ()


Mix = Callable[[OpenBlock, Layout], Tensor]


@dataclass(frozen=True)
class _Method:
    mix: Mix
    attention_alone: bool
    reads: tuple[int, ...]


_METHODS: dict[DenseMode, _Method] = {}


def mixes(mode: DenseMode, *, attention_alone: bool = False, reads: Sequence[int] = ()) -> Callable[[Mix], Mix]:
    """Register what takes the place of attention, (B,M,T,d), in a mode.

    ``attention_alone`` leaves the residual and the feed-forward branch out. ``reads`` are the 1-based numbers of
    earlier blocks whose queries and keys the mode wants in its layout.
    """

    def register(mix: Mix) -> Mix:
        _METHODS[mode] = _Method(mix, attention_alone, tuple(reads))
        return mix

    return register


def blocks_read(mode: DenseMode, last: int) -> tuple[int, ...]:
    """1-based numbers of the blocks whose queries and keys ``mode`` reads; ClippyError unless all precede ``last``."""
    reads = _METHODS[mode].reads
    if reads and reads[-1] >= last:
        raise ClippyError(
            f"The dense mode {mode} reads the attention of blocks {reads[0]} to {reads[-1]}, and patches are taken "
            f"from block {last} here.",
            "Choose a deeper vision transformer, or another mode.",
        )
    return reads


def run_block(tokens: Tensor, block: OpenBlock, layout: Layout, mode: DenseMode = DenseMode.PLAIN) -> Tensor:
    """(B,P+N,width) in, (B,P+N,width) out, by the attention that ``mode`` names."""
    method = _METHODS[mode]
    added = block.join(method.mix(block, layout))
    if method.attention_alone:
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


@mixes(DenseMode.CLEARCLIP, attention_alone=True)
def _queries_alone(block: OpenBlock, layout: Layout) -> Tensor:
    """Queries with queries (arXiv 2407.12442, section 3.3; the choice of the public code among its self-attentions)."""
    return F.scaled_dot_product_attention(block.queries, block.queries, block.values)


@mixes(DenseMode.RESCLIP, attention_alone=True, reads=(6, 7, 8, 9))
def _residual(block: OpenBlock, layout: Layout) -> Tensor:
    """ResCLIP without its second pass over a first segmentation, which needs the texts; blocks as in its code."""
    return residual_attention(block.keys, block.values, layout.earlier, layout.grid, layout.num_prefix)


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
