"""What takes the place of softmax(q k^T) v in the last block. Shapes: B batch, M heads, T = P+N tokens, d head width.

Scores are computed for some queries at a time: never more than ``MAX_SCORES`` of them (128 MiB in float32), of which
a handful of copies live at once, however many patches an image has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.model.pooling import at_least_float32

MAX_SCORES = 2**25


def correlative_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Each (B,M,T,d) -> (B,M,T,d): softmax(q q^T s) v + softmax(k k^T s) v, s = d^-1/2; rows sum to two, not one.

    SCLIP, correlative self-attention (arXiv 2312.01597). Prefix tokens take part as any other token.
    """
    attention = F.scaled_dot_product_attention
    return attention(queries, queries, values) + attention(keys, keys, values)


def neighbour_attention(
    keys: Tensor, values: Tensor, grid: tuple[int, int], num_prefix: int, *, sigma: float = 5.0
) -> Tensor:
    """Each (B,M,T,d) -> (B,M,T,d): softmax(k k^T s + G) v, s = d^-1/2, for a patch grid (h,w).

    NACLIP, neighbour-aware attention (arXiv 2404.08181; sigma as in its code). Between patches i and j, whose distance
    r is counted in patches, G = exp(-r^2 / (2 sigma^2)); from and to prefix tokens it is 0, and k k^T alone counts.
    """
    batch, heads, tokens, _ = keys.shape
    down, across = (_distance_kernel(side, sigma, keys) for side in grid)  # (h,h), (w,w)
    # One row a query: (N,h) and (N,w), with zeros above for the prefix.
    down = F.pad(down.repeat_interleave(grid[1], dim=0), (0, 0, num_prefix, 0))
    across = F.pad(across.repeat(grid[0], 1), (0, 0, num_prefix, 0))
    mixed = []
    for part in query_parts(tokens, batch * heads * tokens):
        kernel = (down[part, :, None] * across[part, None, :]).flatten(1)  # (c,h,w) -> (c,N)
        kernel = F.pad(kernel, (num_prefix, 0)).to(keys.dtype)  # (c,T)
        mixed.append(F.scaled_dot_product_attention(keys[:, :, part], keys, values, attn_mask=kernel))
    return torch.cat(mixed, dim=2)


def residual_attention(
    keys: Tensor,
    values: Tensor,
    earlier: Sequence[tuple[Tensor, Tensor]],
    grid: tuple[int, int],
    num_prefix: int,
    *,
    share: float = 0.4,
    gain: float = 2.0,
) -> Tensor:
    """Each (B,M,T,d) -> (B,M,T,d): gain ((1 - share) A v + share mean_l softmax(q_l k_l^T s) v), s = d^-1/2.

    ResCLIP, residual cross-correlation self-attention (arXiv 2411.15851, section 3.2): A is the weights of
    :func:`neighbour_attention`, and (q_l, k_l) in ``earlier`` are queries and keys of blocks before the last. Rows sum
    to ``gain``. Its code tunes ``share`` for each set, from 0.2 to 0.6; 0.4 is its most frequent value.

    The mean of weights times v is the mean of weighted v, so that no weights of two blocks are held at once.
    """
    crossed = torch.zeros_like(values)
    for queries, earlier_keys in earlier:
        crossed += F.scaled_dot_product_attention(queries, earlier_keys, values)
    own = neighbour_attention(keys, values, grid, num_prefix)
    return gain * torch.lerp(own, crossed / len(earlier), share)


def proxy_attention(proxy: Tensor, values: Tensor, num_prefix: int, *, beta: float = 1.2, gamma: float = 3.0) -> Tensor:
    """(B,h,w,F') features of another trunk on the same grid, (B,M,T,d) values -> (B,M,T,d).

    ProxyCLIP, adaptive normalization and masking (arXiv 2408.04883; beta and gamma as in its code): patches attend by
    softmax over gamma (cosine - beta mean cosine), those below zero left out, the same in every head. A patch always
    sees itself, or a blank image would leave it nothing. Prefix tokens are not attended to; each keeps its own value.
    """
    features = F.normalize(at_least_float32(proxy).flatten(1, 2), dim=-1)  # (B,h,w,F') -> (B,N,F')
    mean = features.mean(dim=1).square().sum(dim=-1)[:, None, None]  # of all N^2 cosines
    batch, patches, _ = features.shape
    flat = values[:, :, num_prefix:].transpose(1, 2).flatten(2)  # (B,M,N,d) -> (B,N,M*d)
    mixed = []
    for part in query_parts(patches, batch * patches):
        scores = gamma * (features[:, part] @ features.mT - beta * mean)  # (B,c,N)
        hidden = scores < 0
        hidden.diagonal(part.start, dim1=1, dim2=2).fill_(False)
        mixed.append(scores.masked_fill_(hidden, -torch.inf).softmax(dim=-1).to(flat.dtype) @ flat)
    attended = (
        torch.cat(mixed, dim=1).view(batch, patches, values.shape[1], -1).transpose(1, 2)
    )  # (B,N,M*d) -> (B,M,N,d)
    return torch.cat([values[:, :, :num_prefix], attended], dim=2)


def _distance_kernel(side: int, sigma: float, like: Tensor) -> Tensor:
    """(side,side) Gaussian of the distance between two positions, in float32 at least."""
    position = torch.arange(side, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    return torch.exp(-(position[:, None] - position).square() / (2 * sigma**2))


def query_parts(queries: int, scores_per_query: int) -> Iterator[slice]:
    """Consecutive queries, as many at a time as ``MAX_SCORES`` allows; one at least."""
    size = max(1, MAX_SCORES // scores_per_query)
    for start in range(0, queries, size):
        yield slice(start, min(start + size, queries))
