"""Metrics of groups without names, from counts of the pixels that groups and annotated segments share.

G groups, S annotated segments, K clusters, C classes, N pixels that count. A figure of one image is NaN where nothing
was annotated; averages over images leave such images out. Three different figures are called Jaccard in the
literature: :func:`jaccard`, :func:`average_best_overlap`, and the mIoU of :func:`hungarian_confusion`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_SMALL = 1024  # numbers below this index a table as they are; others are renumbered first, which sorts all pixels


def contingency(groups: Tensor, segments: Tensor, ignore_index: int | None = None) -> Tensor:
    """Pixels that each group shares with each segment: two integer maps of equal shape -> (G,S) int64.

    Any integers will do as numbers of groups and of segments. Pixels whose segment is ``ignore_index`` do not count
    at all; rows and columns are the numbers that occur among the others, in ascending order.

    Raises:
        ValueError: maps of different shape.
    """
    if groups.shape != segments.shape:
        raise ValueError(f"groups have shape {tuple(groups.shape)}, segments {tuple(segments.shape)}")
    if not groups.numel():
        return torch.zeros(0, 0, dtype=torch.int64, device=groups.device)
    group_numbers, groups = _renumber(groups)
    segment_numbers, segments = _renumber(segments)
    shape = len(group_numbers), len(segment_numbers)
    cells = torch.add(segments, groups, alpha=shape[1])
    table = torch.bincount(cells.flatten(), minlength=math.prod(shape)).view(shape)  # (N,) -> (G,S)
    if ignore_index is not None:
        table[:, segment_numbers == ignore_index] = 0
    return table[table.any(dim=1)][:, table.any(dim=0)]


def jaccard(table: Tensor) -> float:
    """Mean IoU in [0, 1] over the segments of one image, each matched with at most one group and no group twice.

    The matching (Hungarian) maximizes the summed IoU; a segment without a group counts 0. The ``jaccard`` of results.
    """
    overlaps = _iou(table)
    if not overlaps.shape[1]:
        return math.nan
    matched = linear_sum_assignment(overlaps, maximize=True)
    return float(overlaps[matched].sum() / overlaps.shape[1])


def average_best_overlap(table: Tensor) -> float:
    """Mean over the segments of one image of the best IoU with any group, in [0, 1]; a group may serve twice.

    The ABO of the object proposal literature (Uijlings et al., Selective Search, IJCV 2013, section 5.2, of boxes; of
    regions in Krahenbuhl and Koltun, ECCV 2014), which averages over the segments of a class or a whole set. The paper
    of DINO (Caron et al. 2021) describes a Jaccard similarity of this kind; its public code has none for VOC. Never
    below :func:`jaccard`.
    """
    overlaps = _iou(table)
    return float(overlaps.max(axis=0).mean()) if overlaps.size else math.nan


def segmentation_covering(table: Tensor) -> float:
    """How well the groups cover one annotator's segments R, in [0, 1]: sum over R of |R|/N times its best IoU.

    Arbelaez et al. 2011, section 3.1.3; over several annotators of one image, the mean.
    """
    overlaps = _iou(table)
    if not overlaps.size:
        return math.nan
    areas = table.sum(dim=0).cpu().numpy()
    return float(overlaps.max(axis=0) @ areas / areas.sum())


def pooled_covering(coverings: Sequence[float], pixels: Sequence[int]) -> float:
    """The covering of a set, in [0, 1], as Berkeley's benchmark pools it (``collect_eval_reg.m`` of BSR).

    That code adds |R| times the best IoU over the regions R of all annotators of all images, and divides by the sum of
    all |R|. So an image counts by its size and by how many annotated it; in the mean over images each counts the same.

    Args:
        coverings: of each image, the mean over its annotators, all of whom marked the same pixels.
        pixels: of each image, the pixels of all its annotators together.
    """
    total = sum(pixels)
    return math.fsum(c * n for c, n in zip(coverings, pixels, strict=True)) / total if total else math.nan


def probabilistic_rand_index(tables: Sequence[Tensor]) -> float:
    """Mean over annotators, one table each, of the Rand index in [0, 1].

    The Rand index is the share of pixel pairs that both maps join or both part. That its mean is the probabilistic
    index is shown by Unnikrishnan et al. 2007. A table without a pair is left out; NaN if none has one.
    """
    values = [_rand_index(table) for table in tables if int(table.sum()) > 1]
    return sum(values) / len(values) if values else math.nan


def variation_of_information(table: Tensor) -> float:
    """H(groups | segments) + H(segments | groups) in bits, 0 for the same partition (Meila 2005)."""
    counts = table.cpu().double()
    rows, columns = counts.nonzero(as_tuple=True)
    if not len(rows):
        return math.nan
    shared = counts[rows, columns]  # (M,), the pairs that share pixels
    bits = (counts.sum(dim=1)[rows] / shared).log2() + (counts.sum(dim=0)[columns] / shared).log2()
    return float(shared @ bits / counts.sum())


def hungarian_assignment(counts: Tensor) -> Tensor:
    """The class of each cluster, (K,C) pixel counts of a whole set -> (K,) int64, -1 for a cluster without a class.

    One to one, so that the most pixels are right (PiCIE, Cho et al. 2021; STEGO, Hamilton et al. 2022).
    """
    clusters, classes = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    assignment = torch.full((len(counts),), -1, dtype=torch.int64)
    assignment[torch.from_numpy(clusters)] = torch.from_numpy(classes)
    return assignment.to(counts.device)


def hungarian_confusion(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Clusters renamed to classes: (K,C) pixel counts -> confusion (C,C), and unmatched pixels per class (C,).

    Rows are annotated, columns predicted. With more clusters than classes the pixels of clusters without a class are
    unmatched: give them to the functions of ``metrics`` as ``missed``, where they stay in the union of their annotated
    class and in the total. With fewer, no pixel is predicted as a class without a cluster, and its IoU is 0.
    """
    assignment = hungarian_assignment(counts)
    matched = assignment >= 0
    confusion = counts.new_zeros(counts.shape[1], counts.shape[1])
    confusion[:, assignment[matched]] = counts[matched].T
    return confusion, counts[~matched].sum(dim=0)


def without_extra_clusters(counts: Tensor) -> Tensor:
    """(K,C) pixel counts -> those of the first C clusters, (min(K,C),C): what STEGO's public code leaves to be matched.

    Its ``UnsupervisedMetrics.update`` (src/utils.py) masks pixels whose cluster has a number of C or above, so that
    with extra clusters their pixels count neither as right nor as wrong, and which ones go depends on how clusters are
    numbered. :func:`hungarian_confusion` of all clusters counts every pixel.
    """
    return counts[: counts.shape[1]]


def _renumber(values: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers that may occur, and for each pixel the index of its own among them."""
    low, high = (int(limit) for limit in values.aminmax())
    if low < 0 or high >= _SMALL:
        numbers, indices = torch.unique(values.long(), return_inverse=True)
        return numbers, indices
    return torch.arange(high + 1, device=values.device), values.to(torch.int32)


def _iou(table: Tensor) -> NDArray[np.float64]:
    """(G,S) counts -> (G,S) IoU among the pixels that count."""
    shared = table.cpu().double()
    union = shared.sum(dim=1, keepdim=True) + shared.sum(dim=0, keepdim=True) - shared
    overlaps: NDArray[np.float64] = (shared / union).numpy()
    return overlaps


def _rand_index(table: Tensor) -> float:
    """Exact in integers up to 2**31 pixels."""
    pixels = int(table.sum())
    joined = int(table.square().sum())  # ordered pairs, each pixel with itself included, as below
    apart = int(table.sum(dim=0).square().sum()) + int(table.sum(dim=1).square().sum()) - 2 * joined
    return 1 - apart / (pixels * (pixels - 1))
