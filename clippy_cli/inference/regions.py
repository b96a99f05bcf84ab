"""One label for each region of a photo: the label of most of its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.regions import NO_REGION
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.inference.upsampling import strips

Codes = NDArray[np.int16]


def vote(codes: Codes, regions: NDArray[np.int32], maps: Tensor, classes: Sequence[int]) -> Codes:
    """(H,W) codes, (H,W) regions from 1 (0: none) -> (H,W) codes, each region in the code that most of its pixels have.

    Pixels without a region keep theirs. Of codes that are equally frequent the one of the higher mean score over the
    region wins, scores being the (K,h,w) maps upsampled, text k of code ``classes[k]``; a code without a map loses.
    """
    count, most = int(codes.max(initial=0)) + 1, int(regions.max(initial=0)) + 1
    pairs = regions.ravel().astype(np.int64) * count + codes.ravel()
    votes = np.bincount(pairs, minlength=most * count).reshape(most, count)  # (R+1,C)
    winners = votes.argmax(axis=1).astype(np.int16)
    highest = votes.max(axis=1)
    tied = np.flatnonzero(((votes == highest[:, None]).sum(axis=1) > 1) & (highest > 0))
    for region in tied[tied != NO_REGION]:
        candidates = np.flatnonzero(votes[region] == highest[region]).tolist()
        winners[region] = max(candidates, key=_mean_scores(maps, classes, regions == region, candidates).__getitem__)
    return np.where(regions == NO_REGION, codes, winners[regions]).astype(np.int16)


def recount(label_map: LabelMap, codes: Codes) -> LabelMap:
    """A label map of other codes; pixels are counted again, and scores stay those of the labels before the vote."""
    pixels = np.bincount(codes.ravel(), minlength=len(label_map.pixels))
    return LabelMap(codes, pixels, np.where(pixels > 0, label_map.scores, np.nan))


def _mean_scores(
    maps: Tensor, classes: Sequence[int], inside: NDArray[np.bool_], candidates: Sequence[int]
) -> dict[int, float]:
    """The mean over the pixels ``inside`` of the best map of each candidate; minus infinity where it has none."""
    height, width = inside.shape
    touched = np.flatnonzero(inside.any(axis=1))
    means = dict.fromkeys(candidates, -np.inf)
    for code in candidates:
        own = maps[torch.tensor([kind == code for kind in classes], device=maps.device)]
        if len(own) == 0:
            continue
        total = 0.0
        for start, stop, strip in strips(own, height, width, first=int(touched[0]), last=int(touched[-1]) + 1):
            best = strip.amax(dim=0).cpu().numpy()  # (R,W)
            total += float(best[inside[start:stop]].sum(dtype=np.float64))
        means[code] = total / int(inside.sum())
    return means
