"""Segmentation metrics over one int64 confusion matrix of the whole set. C classes, rows annotated, columns predicted.

What happens at the edges:

- A class that is neither annotated nor predicted has no IoU (NaN) and is left out of the mean; one that is predicted
  but never annotated has IoU 0 and stays in it.
- Ignored pixels count nowhere, whatever was predicted there; an image of nothing else adds zeros.
- Of an empty set, or one of ignored pixels alone, every figure is NaN.
- Pixels without any predicted class (``missed``, per annotated class) count as wrong: in the union of the annotated
  class and in the totals, but as a false alarm of none.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Triples = tuple[tuple[int, int, int], ...]

_MASK_VALUES = 256


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int, *, num_predicted: int | None = None
) -> Tensor:
    """Pixel counts (C,C) int64 on the same device, rows the annotated class, columns the predicted one.

    ``prediction`` and ``target`` are integer tensors of equal shape and of any integer type; pixels whose target is
    ``ignore_index`` do not count. With ``num_predicted`` predictions are clusters 0..K-1, and the counts (C,K).

    Raises:
        ValueError: shapes that differ, or a class out of range among the pixels that count.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}")
    columns = num_classes if num_predicted is None else num_predicted
    if not target.numel():
        return torch.zeros(num_classes, columns, dtype=torch.int64, device=target.device)
    if not 0 <= ignore_index < _MASK_VALUES:  # it gets a row of its own, so it has to be a small number
        target = target.long()  # a comparison with 256 in uint8 is one with 0
        counted = target != ignore_index
        if bool((counted & (target == num_classes)).any()):
            raise _out_of_range("target", target[counted], num_classes)
        target, ignore_index = torch.where(counted, target, num_classes), num_classes
    rows = max(num_classes, ignore_index + 1)
    limits = torch.stack([limit.long() for limit in (*target.aminmax(), *prediction.aminmax())])
    target_low, target_high, low, high = limits.tolist()  # one wait for the device
    if target_low < 0 or target_high >= rows:
        raise _out_of_range("target", target[target != ignore_index], num_classes)
    if low < 0 or high >= columns:
        counted = target != ignore_index
        if bool((counted & ((prediction < 0) | (prediction >= columns))).any()):
            raise _out_of_range("prediction", prediction[counted], columns)
        prediction = torch.where(counted, prediction, 0)
    narrow = torch.int32 if rows * columns < 2**31 else torch.int64
    cells = torch.add(prediction, target.to(narrow), alpha=columns)
    counts = torch.bincount(cells.flatten(), minlength=rows * columns).view(rows, columns)
    counts[ignore_index] = 0
    if rows > num_classes and bool(counts[num_classes:].any()):
        raise _out_of_range("target", target[target != ignore_index], num_classes)
    return counts[:num_classes]


def iou_per_class(confusion: Tensor, missed: Tensor | None = None) -> Tensor:
    """IoU in [0, 1], (C,C) -> (C,) float64 on the CPU; NaN where a class is neither annotated nor predicted.

    ``missed`` (C,) are pixels of each annotated class for which no class was predicted.
    """
    right = confusion.diagonal()
    return _ratio(right, _annotated(confusion, missed) + confusion.sum(dim=0) - right)


def mean_iou(confusion: Tensor, missed: Tensor | None = None) -> float:
    """mIoU in [0, 1]: the mean over classes that are annotated or predicted somewhere; NaN if there is none."""
    return float(iou_per_class(confusion, missed).nanmean())


def pixel_accuracy(confusion: Tensor, missed: Tensor | None = None) -> float:
    """Share of counted pixels that are right, in [0, 1]; NaN if no pixel counts."""
    return float(_ratio(confusion.diagonal().sum(), _annotated(confusion, missed).sum()))


def class_accuracy(confusion: Tensor, missed: Tensor | None = None) -> Tensor:
    """Share of each class's annotated pixels that are right, (C,C) -> (C,) float64 on the CPU; NaN without pixels."""
    return _ratio(confusion.diagonal(), _annotated(confusion, missed))


def mean_class_accuracy(confusion: Tensor, missed: Tensor | None = None) -> float:
    """Mean over annotated classes of the share of their pixels that are right, in [0, 1]; NaN if there is none."""
    return float(class_accuracy(confusion, missed).nanmean())


def sparse_counts(counts: Tensor) -> Triples:
    """Non-zero cells of a count matrix as (row, column, count), by row and then column."""
    cells = counts.nonzero()  # (M,2)
    triples = torch.cat([cells, counts[cells[:, 0], cells[:, 1]].unsqueeze(1)], dim=1).tolist()
    return tuple((row, column, count) for row, column, count in triples)


def dense_counts(triples: Iterable[tuple[int, int, int]], rows: int, columns: int | None = None) -> Tensor:
    """The inverse of :func:`sparse_counts`: (rows, columns) int64, square by default; repeated cells add up.

    Raises:
        ValueError: a cell outside the matrix, or a negative count.
    """
    columns = rows if columns is None else columns
    table = torch.tensor(list(triples), dtype=torch.int64).reshape(-1, 3)
    wrong = (table < 0).any(dim=1) | (table[:, 0] >= rows) | (table[:, 1] >= columns)
    if wrong.any():
        raise ValueError(f"{tuple(table[wrong][0].tolist())} is no count of a {rows}x{columns} matrix")
    counts = torch.zeros(rows, columns, dtype=torch.int64)
    return counts.index_put_((table[:, 0], table[:, 1]), table[:, 2], accumulate=True)


def _annotated(confusion: Tensor, missed: Tensor | None) -> Tensor:
    rows = confusion.sum(dim=1)
    return rows if missed is None else rows + missed


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.cpu().double() / whole.cpu()  # 0/0 is NaN; not every device has float64


def _out_of_range(name: str, values: Tensor, limit: int) -> ValueError:
    low, high = (int(value) for value in values.aminmax())
    return ValueError(f"{name} holds classes {low}..{high}, beyond 0..{limit - 1}")
