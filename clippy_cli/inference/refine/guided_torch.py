"""The guided filter of :mod:`~clippy_cli.inference.refine.guided` in torch, for accelerators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.inference.refine.guided import EPSILON, PAIRS, coarse_radius, inverted, multiplied


def guided_filter_on_device(scores: Tensor, image: Tensor, radius: int, epsilon: float = EPSILON) -> Tensor:
    """As :func:`~clippy_cli.inference.refine.guided.guided_filter`, on the device of its arguments.

    (K,h,w) scores on the coarse grid, (3,H,W) uint8 photo -> (K,H,W), within 1e-4 of what the host computes. Nothing is
    sent to the host or fetched from it, but for the weights of the photo's means, h x H and w x W values.
    """
    height, width = image.shape[1:]
    size = scores.shape[1:]
    reach = radius if size == (height, width) else coarse_radius(radius)
    guide = image.to(scores) / 255  # (3,H,W)
    first, second = (list(side) for side in zip(*PAIRS, strict=True))
    averaged = _averaged(torch.cat([guide, guide[first] * guide[second]]), *size)  # (9,h,w)
    boxed = _box(averaged, reach)
    coarse, means = averaged[:3], boxed[:3]
    inverse = inverted(list(boxed[3:] - means[first] * means[second]), epsilon)  # six of (h,w)
    refined = scores.new_empty(len(scores), height, width)
    for score, pixels in zip(scores, refined, strict=True):
        smooth = _box(torch.cat([score[None], coarse * score]), reach)  # (4,h,w)
        slopes = torch.stack(multiplied(inverse, list(smooth[1:] - means * smooth[0])))  # (3,h,w)
        offset = smooth[0] - (slopes * means).sum(dim=0)
        fitted = _box(torch.cat([slopes, offset[None]]), reach)  # (4,h,w)
        wide = F.interpolate(fitted[None], (height, width), mode="bilinear", align_corners=False)[0]
        torch.sum(wide[:3] * guide, dim=0, out=pixels)
        pixels += wide[3]
    return refined


def _box(maps: Tensor, radius: int) -> Tensor:
    """The mean over windows of (n,h,w), edges mirrored with the outermost value repeated."""
    mirrored = maps[:, _mirror(maps.shape[1], radius, maps.device)][:, :, _mirror(maps.shape[2], radius, maps.device)]
    side = 2 * radius + 1
    return F.avg_pool2d(F.avg_pool2d(mirrored, (side, 1), 1), (1, side), 1)


def _mirror(size: int, radius: int, device: torch.device) -> Tensor:
    """The positions of a side with ``radius`` more at both ends: 1 0 | 0 1 2 ... n-1 | n-1 n-2."""
    place = torch.arange(-radius, size + radius, device=device) % (2 * size)
    return torch.minimum(place, 2 * size - 1 - place)


def _averaged(maps: Tensor, height: int, width: int) -> Tensor:
    """(n,H,W) -> (n,height,width), the mean over the area of each; pixels that two share count by their part."""
    down, across = _area_weights(maps.shape[1], height), _area_weights(maps.shape[2], width)
    return down.to(maps) @ (maps @ across.to(maps).T)


def _area_weights(size_in: int, size_out: int) -> Tensor:
    """(size_out,size_in) float64: what share of each output value each input position makes."""
    edges = torch.arange(size_out + 1, dtype=torch.float64) * (size_in / size_out)
    positions = torch.arange(size_in, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], positions + 1) - torch.maximum(edges[:-1, None], positions)
    return overlap.clamp(min=0) * (size_out / size_in)
