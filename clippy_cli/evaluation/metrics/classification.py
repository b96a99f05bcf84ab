"""Classification metrics: pure functions over scores. B images, C classes.

Ties never favor the model: a class that scores as high as the right one is taken to come before it, and so is a score
that is not a number. A model that scores all classes alike has top-1 = 0, not 1 and not chance.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def topk_hits(scores: Tensor, targets: Tensor, ks: Iterable[int]) -> dict[int, Tensor]:
    """Whether the right class is among the k best: (B,C) scores, (B,) class indices -> (B,) bool for each k.

    The right class comes after every other class that scores as high or higher, or NaN.

    Raises:
        ValueError: a target outside 0..C-1.
    """
    classes = scores.shape[1]
    outside = targets[(targets < 0) | (targets >= classes)].tolist()
    if outside:
        raise ValueError(f"a target is class {outside[0]}, beyond 0..{classes - 1}")
    own = scores.gather(1, targets.long().unsqueeze(1))  # (B,1)
    before = (~(scores < own)).sum(dim=1) - 1  # the right class itself is not before itself
    return {k: before < k for k in ks}


def accuracy_per_class(hits: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Share of each class's images that hit, (B,) bool and (B,) class indices -> (C,) float64; NaN without images."""
    targets, hits = targets.cpu(), hits.cpu()
    images = torch.bincount(targets, minlength=num_classes)
    return torch.bincount(targets[hits], minlength=num_classes).double() / images  # 0/0 is NaN


def mean_per_class_accuracy(hits: Tensor, targets: Tensor, num_classes: int) -> float:
    """Mean of :func:`accuracy_per_class` over the classes that have images, in [0, 1]; NaN if there is none."""
    return float(accuracy_per_class(hits, targets, num_classes).nanmean())
