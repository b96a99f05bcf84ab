"""Poolings of image tokens, and the score that pools in similarity space. Shapes: see ``model/base.py``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.model.config import Pooling


def pool_tokens(tokens: Tensor, pooling: Pooling, num_prefix: int, *, pool_prefix: bool = False) -> Tensor:
    """(B,P+N,D) tokens -> (B,D), not normalised.

    ``max`` is the channel-wise maximum over tokens (CLIPpy, section 3.2), ``avg`` their mean, ``cls`` the class
    token (CLIP). ``lse`` has no pooled vector of its own; its first-order form, the mean of the unit patch
    vectors, stands in. ``pool_prefix`` lets ``max`` and ``avg`` run over the prefix tokens too.
    """
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "lse":
        return F.normalize(tokens[:, num_prefix:], dim=-1).mean(dim=1)
    pooled = tokens if pool_prefix else tokens[:, num_prefix:]
    return pooled.amax(dim=1) if pooling == "max" else pooled.mean(dim=1)


def lse_scores(patches: Tensor, texts: Tensor, scale: float) -> Tensor:
    """Log-mean-exp over patches of the patch-text cosine: (B,N,D) unit, (K,D) unit -> (B,K) in [-1, 1].

    ``scale`` is an inverse temperature: 0 gives the mean over patches, infinity the best patch. This pools in
    similarity space, as PACL (arXiv 2212.04994) does with softmax weights.
    """
    cosines = patches @ texts.T  # (B,N,K)
    return (torch.logsumexp(scale * cosines, dim=1) - math.log(patches.shape[1])) / scale


def normalized(vectors: Tensor) -> Tensor:
    """Unit norm along the last axis, in float32 at least, whatever autocast is on."""
    return F.normalize(at_least_float32(vectors), dim=-1)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return values.float() if values.element_size() < 4 else values
