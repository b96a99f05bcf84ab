"""Poolings of image tokens, the score that pools in similarity space, and patches pooled among themselves.

Shapes: see ``model/base.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.model.choices import Pooling

AFFINITIES = 1 << 26  # held at once; a quarter of a gigabyte

Pool = Callable[[Tensor, Tensor], Tensor]
_POOLS: dict[Pooling, Pool] = {}


def pools(pooling: Pooling) -> Callable[[Pool], Pool]:
    """Register ``(prefix (B,P,D), patches (B,N,D)) -> (B,D)`` as what a member of ``Pooling`` computes."""

    def register(pool: Pool) -> Pool:
        _POOLS[pooling] = pool
        return pool

    return register


def pool_tokens(tokens: Tensor, pooling: Pooling | str, num_prefix: int, *, pool_prefix: bool = False) -> Tensor:
    """(B,P+N,D) tokens -> (B,D), not normalized; (B,2D) for ``cls+avg``.

    ``pool_prefix`` counts the prefix tokens among the patches.
    """
    patches = tokens if pool_prefix else tokens[:, num_prefix:]
    return _POOLS[Pooling(pooling)](tokens[:, :num_prefix], patches)


@pools(Pooling.MAX)
def _channel_maximum(prefix: Tensor, patches: Tensor) -> Tensor:
    """CLIPpy, section 3.2."""
    return patches.amax(dim=1)


@pools(Pooling.AVG)
def _mean(prefix: Tensor, patches: Tensor) -> Tensor:
    return patches.mean(dim=1)


@pools(Pooling.CLS)
def _class_token(prefix: Tensor, patches: Tensor) -> Tensor:
    """As CLIP pools."""
    return prefix[:, 0]


@pools(Pooling.CLS_AVG)
def _class_token_beside_mean(prefix: Tensor, patches: Tensor) -> Tensor:
    """(B,2D): as dino.txt pools (arXiv 2412.16334, section 3.2; ``hub/text/vision_tower.py`` of DINOv2's code)."""
    return torch.cat([prefix[:, 0], patches.mean(dim=1)], dim=-1)


@pools(Pooling.LSE)
def _mean_of_unit_patches(prefix: Tensor, patches: Tensor) -> Tensor:
    """The first-order form of :func:`lse_scores`, which has no pooled vector of its own."""
    return F.normalize(patches, dim=-1).mean(dim=1)


def lse_scores(patches: Tensor, texts: Tensor, scale: float) -> Tensor:
    """Log-mean-exp over patches of the patch-text cosine: (B,N,D) unit, (K,D) unit -> (B,K) in [-1, 1].

    ``scale`` is an inverse temperature: 0 gives the mean over patches, infinity the best patch. This pools in
    similarity space, as PACL (arXiv 2212.04994) does with softmax weights.
    """
    cosines = patches @ texts.T  # (B,N,K)
    return (torch.logsumexp(scale * cosines, dim=1) - math.log(patches.shape[1])) / scale


def affinity_mean(patches: Tensor, keys: Tensor, scale: float) -> Tensor:
    """(B,N,D) patches, (B,N,F) trunk tokens of the same patches -> (B,N,D): means of unit patches, not normalized.

    A patch's weights are the softmax over all patches of ``scale`` times the cosine of their keys, minus the image's
    mean key: what all patches have in common says nothing about which belong together. Like the proxy attention of
    ProxyCLIP (arXiv 2408.04883, section 3.2), but of the final embeddings and with the model's own inner tokens.
    """
    units = normalized(patches)
    keys = normalized(keys - keys.mean(dim=1, keepdim=True))
    batch, count = keys.shape[:2]
    rows = max(1, AFFINITIES // (batch * count))
    if torch.compiler.is_exporting() or rows >= count:
        return _affinity_rows(units, keys, keys, scale)
    return torch.cat([_affinity_rows(units, keys, part, scale) for part in torch.split(keys, rows, dim=1)], dim=1)


def _affinity_rows(units: Tensor, keys: Tensor, queries: Tensor, scale: float) -> Tensor:
    """(B,N,D), (B,N,F), (B,M,F) -> (B,M,D)."""
    return (scale * queries @ keys.transpose(1, 2)).softmax(dim=-1) @ units


def normalized(vectors: Tensor) -> Tensor:
    """Unit norm along the last axis, in float32 at least, whatever autocast is on."""
    return F.normalize(at_least_float32(vectors), dim=-1)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return values.float() if values.element_size() < 4 else values
