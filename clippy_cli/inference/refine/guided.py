"""The guided filter with a color guide (He, Sun and Tang, ECCV 2010, section 3 and equations 14 to 16).

Coefficients are fitted on a coarser grid than the photo's, upsampled, and applied at the photo's size, as in the fast
guided filter (He and Sun 2015, arXiv 1505.00996). Unlike there, the photo is not sampled but averaged, products of its
channels too, so that a window's mean and covariance are those of all its pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Colors that differ by less than a tenth of their range count as one surface: texture, noise and JPEG blocks do,
# borders of things mostly do not.
EPSILON = 0.1**2
REACH = 6  # steps of the coarse grid that a window reaches to each side; 99.9 % of pixels keep the full filter's label
PAIRS = tuple(itertools.combinations_with_replacement(range(3), 2))  # rr, rg, rb, gg, gb, bb


def coarse_size(height: int, width: int, radius: int) -> tuple[int, int]:
    """The grid on which coefficients are fitted: windows of 2 ``radius`` + 1 pixels span 13 of its steps, or as many.

    (height, width) itself where the radius in pixels is no more than that reaches.
    """
    step = max(1.0, (2 * radius + 1) / (2 * REACH + 1))
    return max(1, round(height / step)), max(1, round(width / step))


def coarse_radius(radius: int) -> int:
    """A window's reach in steps of :func:`coarse_size`'s grid."""
    return min(radius, REACH)


def guided_filter(scores: Array, image: NDArray[np.uint8], radius: int, epsilon: float = EPSILON) -> Array:
    """(K,h,w) float32 scores on the coarse grid, (H,W,3) uint8 photo -> (K,H,W) that follow the photo's edges.

    In each window of 2 ``radius`` + 1 pixels a score is fitted as a linear function of color in [0, 1], with
    ``epsilon`` as ridge; a pixel takes the mean over its windows. Edges are mirrored. The filter is linear and keeps
    constants, so that scores which add up to 1 still do. Scores of the photo's own size are filtered exactly.
    """
    (height, width), size = image.shape[:2], scores.shape[1:]
    reach = radius if size == (height, width) else coarse_radius(radius)
    channels = [plane.astype(np.float32) / np.float32(255) for plane in cv2.split(image)]
    coarse = [_averaged(channel, size) for channel in channels]
    means = [_box(channel, reach) for channel in coarse]
    products = [_averaged(channels[i] * channels[j], size) for i, j in PAIRS]
    covariance = [_box(product, reach) - means[i] * means[j] for product, (i, j) in zip(products, PAIRS, strict=True)]
    inverse = inverted(covariance, epsilon)
    refined = np.empty((len(scores), height, width), np.float32)
    for score, pixels in zip(scores, refined, strict=True):
        mean = _box(score, reach)
        shared = [_box(coarse[i] * score, reach) - means[i] * mean for i in range(3)]
        slopes = multiplied(inverse, shared)
        offset = mean - slopes[0] * means[0] - slopes[1] * means[1] - slopes[2] * means[2]
        pixels[:] = _upsampled(_box(offset, reach), height, width)
        for slope, channel in zip(slopes, channels, strict=True):
            cv2.accumulateProduct(_upsampled(_box(slope, reach), height, width), channel, pixels)
    return refined


def inverted(covariance: Sequence[Any], epsilon: float) -> list[Any]:
    """The inverse of symmetric 3x3 matrices with ``epsilon`` added to their diagonal, by the adjugate.

    Six arrays or tensors of any shape, in the order of ``PAIRS``; so is the result.
    """
    rr, rg, rb, gg, gb, bb = covariance
    rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon
    cofactors = [gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb]
    scale = 1 / (rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2])
    cofactors += [rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg]
    return [cofactor * scale for cofactor in cofactors]


def multiplied(matrix: Sequence[Any], vector: Sequence[Any]) -> list[Any]:
    """A symmetric 3x3 matrix in the order of ``PAIRS`` times a vector of three."""
    rr, rg, rb, gg, gb, bb = matrix
    r, g, b = vector
    return [rr * r + rg * g + rb * b, rg * r + gg * g + gb * b, rb * r + gb * g + bb * b]


def _box(values: Array, radius: int) -> Array:
    """The mean over windows, (h,w)."""
    side = 2 * radius + 1
    mean: Array = cv2.boxFilter(values, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REFLECT)
    return mean


def _averaged(values: Array, size: tuple[int, ...]) -> Array:
    """(H,W) -> the mean over the area of each of h x w values; pixels that two share count by their part."""
    if values.shape == size:
        return values
    mean: Array = cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return mean


def _upsampled(values: Array, height: int, width: int) -> Array:
    """(h,w) -> (height,width), bilinear."""
    if values.shape == (height, width):
        return values
    wide: Array = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return wide
