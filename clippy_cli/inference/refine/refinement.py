"""From similarities on the patch grid to probabilities that follow the photo's edges, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.images import resize_image
from clippy_cli.errors import ClippyError
from clippy_cli.inference.class_map import BackgroundRule
from clippy_cli.inference.label_map import STRIP_ELEMENTS, paint, upsample_rows
from clippy_cli.inference.refine.crf import check_crf, crf
from clippy_cli.inference.refine.guided import guided_filter
from clippy_cli.inference.refine.pamr import pamr

Method = Literal["guided", "pamr", "crf"]
METHODS: tuple[Method, ...] = get_args(Method)
MAX_PIXELS = 512 * 512  # a photo is refined at no more than this; what comes out is upsampled
_FEWEST = 2  # with one class there is nothing to decide


@dataclass(frozen=True)
class Refined:
    """Probabilities (C,h,w) in [0, 1] of those ``classes`` that won a pixel before refinement, at the working size."""

    probabilities: Tensor
    classes: tuple[int, ...]


def parse_refinement(text: str) -> Method | None:
    """A method's name, or ``none``; ClippyError otherwise, and where a method's package is missing."""
    if text == "none":
        return None
    for method in METHODS:
        if text == method:
            if method == "crf":
                check_crf()
            return method
    raise ClippyError(f"--refine cannot be {text!r}", f"Choose among none, {', '.join(METHODS)}.")


def refine(
    maps: Tensor, classes: Sequence[int], image: NDArray[np.uint8], method: Method, *, softmax: bool = True
) -> Refined:
    """(K,h,w) logits of texts and each text's class, (H,W,3) photo -> refined probabilities of the classes.

    A class has the probability of its best text among all K, as upsampled logits give it; without ``softmax`` the
    values themselves are taken. Refinement moves borders: only classes that win a pixel before it can win one after
    it. It works at the photo's size, or reduced to 512x512 pixels in all. The guided filter's radius is one patch,
    the distance over which upsampling blurs a border. Memory: 1 MB a class that wins, a few hundred MB beyond.
    """
    height, width = working_size(*image.shape[:2])
    small = resize_image(image, height, width)
    lookup = torch.tensor(classes, device=maps.device)
    won = torch.zeros(int(lookup.max()) + 1, dtype=torch.bool, device=maps.device)
    for _, _, logits in _strips(maps, height, width):
        won[lookup[logits.argmax(dim=0)]] = True
    kept = tuple(won.nonzero()[:, 0].tolist())
    probabilities = maps.new_empty(len(kept), height, width)
    for start, stop, logits in _strips(maps, height, width):
        values = logits.softmax(dim=0) if softmax else logits
        for place, kind in enumerate(kept):
            probabilities[place, start:stop] = values[lookup == kind].amax(dim=0)
    if len(kept) < _FEWEST and softmax:
        return Refined(probabilities, kept)
    radius = max(1, round(height / maps.shape[1]))
    return Refined(_METHODS[method](probabilities, small, radius).clamp_(max=1), kept)


def refined_classes(refined: Refined, height: int, width: int, background: BackgroundRule | None = None) -> Tensor:
    """The class (height,width) uint8 of highest refined probability at each pixel, with the rule for background.

    The threshold is applied to refined probabilities, and ``min_area`` to what they win.
    """
    probabilities, classes = refined.probabilities, refined.classes
    threshold = None if background is None else background.threshold
    if background is not None and background.min_area is not None:
        areas = paint(probabilities, height, width, [kind + 1 for kind in classes]).pixels[1:]
        foreground = areas.sum() - (areas[background.index] if background.index < len(areas) else 0)
        stays = [kind == background.index or areas[kind] > background.min_area * foreground for kind in classes]
        if not any(stays):
            index = background.index
            return torch.full((height, width), index, dtype=torch.uint8, device=probabilities.device)
        probabilities = probabilities[torch.tensor(stays, device=probabilities.device)]
        classes = tuple(kind for kind, stay in zip(classes, stays, strict=True) if stay)
    codes = paint(probabilities, height, width, [kind + 1 for kind in classes], threshold=threshold).codes
    below = 0 if background is None else background.index
    found = np.where(codes == 0, below, codes - 1).astype(np.uint8)
    return torch.from_numpy(found).to(probabilities.device)


def working_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in pixels of no more than 512x512 in all, aspect kept."""
    scale = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def _strips(maps: Tensor, height: int, width: int) -> Iterator[tuple[int, int, Tensor]]:
    """First row, end and upsampled rows (K,R,width) of one strip after the other."""
    rows = max(1, STRIP_ELEMENTS // (len(maps) * width))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        yield start, stop, upsample_rows(maps, height, width, start, stop)


def _guided(probabilities: Tensor, image: NDArray[np.uint8], radius: int) -> Tensor:
    filtered = guided_filter(probabilities.cpu().numpy(), image, radius)
    return torch.from_numpy(filtered).to(probabilities.device)


def _pamr(probabilities: Tensor, image: NDArray[np.uint8], radius: int) -> Tensor:
    photo = torch.from_numpy(image).to(probabilities.device).permute(2, 0, 1).float() / 255  # (H,W,3) -> (3,H,W)
    return pamr(probabilities, photo)


def _crf(probabilities: Tensor, image: NDArray[np.uint8], radius: int) -> Tensor:
    return torch.from_numpy(crf(probabilities.cpu().numpy(), image)).to(probabilities.device)


_METHODS = {"guided": _guided, "pamr": _pamr, "crf": _crf}
