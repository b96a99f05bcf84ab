"""The guided filter with a colour guide (He, Sun and Tang, ECCV 2010, section 3 and equations 14 to 16)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Colours that differ by less than a tenth of their range count as one surface: texture, noise and JPEG blocks do,
# borders of things mostly do not.
EPSILON = 0.1**2


def guided_filter(scores: Array, image: NDArray[np.uint8], radius: int, epsilon: float = EPSILON) -> Array:
    """(K,H,W) float32 scores, (H,W,3) uint8 photo of the same size -> (K,H,W) that follow the photo's edges.

    In each window of 2 ``radius`` + 1 pixels a score is fitted as a linear function of colour in [0, 1], with
    ``epsilon`` as ridge; a pixel takes the mean over its windows. Edges are mirrored. The filter is linear and keeps
    constants, so that scores which add up to 1 still do.
    """
    guide: Array = image.astype(np.float32) / np.float32(255)
    means = _box(guide, radius)  # (H,W,3)
    inverse = np.linalg.inv(_covariance(guide, means, radius) + epsilon * np.eye(3, dtype=np.float32))  # (H,W,3,3)
    refined = np.empty_like(scores)
    for index, score in enumerate(scores):
        mean = _box(score, radius)  # (H,W)
        covariance = _box(guide * score[..., None], radius) - means * mean[..., None]  # (H,W,3)
        slope = np.einsum("hwij,hwj->hwi", inverse, covariance)
        offset = mean - (slope * means).sum(axis=2)
        refined[index] = (_box(slope, radius) * guide).sum(axis=2) + _box(offset, radius)
    return refined


def _covariance(guide: Array, means: Array, radius: int) -> Array:
    """(H,W,3,3) covariance of the colours in each window."""
    height, width = guide.shape[:2]
    products = (guide[..., :, None] * guide[..., None, :]).reshape(height, width, 9)  # (H,W,3,3) -> (H,W,9)
    covariance = _box(products, radius).reshape(height, width, 3, 3) - means[..., :, None] * means[..., None, :]
    return covariance.astype(np.float32)


def _box(values: Array, radius: int) -> Array:
    """The mean over windows, (H,W) or (H,W,n)."""
    side = 2 * radius + 1
    mean: Array = cv2.boxFilter(values, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REFLECT)
    return mean
