"""Texts of like length in one batch, so that little of what a text tower computes is padding.

Padding that is masked changes a vector by rounding alone; the order of the texts is that of the input again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TEXT_BATCH = 256  # texts that a text tower is given at a time


def length_batches(lengths: Sequence[int], size: int = TEXT_BATCH) -> list[list[int]]:
    """Rows 0 to K-1 in batches of at most ``size``, the shortest texts first; equal lengths keep their order.

    >>> length_batches([7, 3, 7, 5], size=2)
    [[1, 3], [0, 2]]
    """
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def embed_by_length(embed: Callable[[list[int]], Tensor], lengths: Sequence[int]) -> Tensor:
    """Vectors (K,D) of K >= 1 texts, in their own order.

    Args:
        embed: rows of the texts -> (rows,D), padded to the longest of them.
        lengths: of each text, in tokens; all equal where a tower pads every text to its context.
    """
    batches = length_batches(lengths)
    if len(batches) == 1:  # nothing is gained by another order
        return embed(list(range(len(lengths))))
    vectors = torch.cat([embed(rows) for rows in batches])  # (K,D), the shortest text first
    order = torch.tensor([row for rows in batches for row in rows], device=vectors.device)  # (K,)
    return torch.empty_like(vectors).index_copy_(0, order, vectors)
