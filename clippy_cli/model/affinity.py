"""Patches that look alike to the trunk share what they say."""

from __future__ import annotations

import torch
from torch import Tensor

from clippy_cli.model.pooling import normalized

CELLS = 1 << 26  # affinities held at once; a quarter of a gigabyte


def affinity_mean(patches: Tensor, keys: Tensor, scale: float) -> Tensor:
    """(B,N,D) patches, (B,N,F) trunk tokens of the same patches -> (B,N,D): means of unit patches, not normalised.

    A patch's weights are the softmax over all patches of ``scale`` times the cosine of their keys, minus the image's
    mean key: what all patches have in common says nothing about which belong together. Like the proxy attention of
    ProxyCLIP (arXiv 2408.04883, section 3.2), but of the final embeddings and with the model's own inner tokens.
    """
    units = normalized(patches)
    keys = normalized(keys - keys.mean(dim=1, keepdim=True))
    batch, count = keys.shape[:2]
    rows = max(1, CELLS // (batch * count))
    if torch.compiler.is_exporting() or rows >= count:
        return _mean(units, keys, keys, scale)
    return torch.cat([_mean(units, keys, part, scale) for part in torch.split(keys, rows, dim=1)], dim=1)


def _mean(units: Tensor, keys: Tensor, queries: Tensor, scale: float) -> Tensor:
    """(B,N,D), (B,N,F), (B,M,F) -> (B,M,D)."""
    return (scale * queries @ keys.transpose(1, 2)).softmax(dim=-1) @ units
