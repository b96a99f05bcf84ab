"""Segmentation metrics over one int64 confusion matrix of the whole set. C classes."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Pixel counts (C,C) int64, rows the annotated class, columns the predicted one.

    ``prediction`` and ``target`` are integer tensors of equal shape on one device; pixels whose target is
    ``ignore_index`` do not count.

    Raises:
        ValueError: shapes that differ, or a class outside 0..C-1 among the pixels that count.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}")
    counted = target != ignore_index
    target, prediction = target[counted].long(), prediction[counted].long()
    for name, values in (("target", target), ("prediction", prediction)):
        if not values.numel():
            continue
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name} holds classes {low}..{high}, beyond 0..{num_classes - 1}")
    return torch.bincount(target * num_classes + prediction, minlength=num_classes**2).view(num_classes, num_classes)


def iou_per_class(confusion: Tensor) -> Tensor:
    """IoU in [0, 1], (C,C) -> (C,) float64; NaN where a class is neither annotated nor predicted."""
    confusion = confusion.double()
    intersection = confusion.diagonal()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - intersection
    return intersection / union  # 0/0 is NaN


def mean_iou(confusion: Tensor) -> float:
    """mIoU in [0, 1]: the mean over classes that are annotated or predicted somewhere; NaN if there is none."""
    return float(iou_per_class(confusion).nanmean())


def pixel_accuracy(confusion: Tensor) -> float:
    """Share of counted pixels that are right, in [0, 1]; NaN if no pixel counts."""
    return float(confusion.diagonal().sum().double() / confusion.sum().double())


def mean_class_accuracy(confusion: Tensor) -> float:
    """Mean over annotated classes of the share of their pixels that are right, in [0, 1]."""
    confusion = confusion.double()
    return float((confusion.diagonal() / confusion.sum(dim=1)).nanmean())
