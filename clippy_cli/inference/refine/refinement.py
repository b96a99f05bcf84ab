"""From similarities on the patch grid to probabilities that follow the photo's edges, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.images import resize_image
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import NO_REFINEMENT, Refinement
from clippy_cli.inference.refine.crf import check_crf, crf
from clippy_cli.inference.refine.guided import coarse_size, guided_filter
from clippy_cli.inference.refine.guided_torch import guided_filter_on_device
from clippy_cli.inference.refine.pamr import pamr
from clippy_cli.inference.upsampling import strips, working_size

_STRIP_ELEMENTS = 1_000_000  # values of upsampled maps at a time: 4 MB
_FEWEST = 2  # with one class there is nothing to decide


@dataclass(frozen=True)
class Refined:
    """Probabilities (C,h,w) in [0, 1] of those ``classes`` that won a pixel before refinement.

    They have the working size, or the guided filter's coarse one where a single class wins and nothing is filtered.
    """

    probabilities: Tensor
    classes: tuple[int, ...]


def parse_refinement(text: str) -> Refinement | None:
    """A method's name, or ``none``; ClippyError otherwise, and where a method's package is missing."""
    if text == NO_REFINEMENT:
        return None
    if text not in list(Refinement):
        raise ClippyError(f"--refine cannot be {text!r}", f"Choose among {NO_REFINEMENT}, {', '.join(Refinement)}.")
    if text == Refinement.CRF:
        check_crf()
    return Refinement(text)


def refine(
    maps: Tensor, classes: Sequence[int], image: NDArray[np.uint8], method: Refinement, *, softmax: bool = True
) -> Refined:
    """(K,h,w) logits of entries and each entry's class, (H,W,3) photo -> refined probabilities of the classes.

    A class has the probability of its best entry among all K, as upsampled logits give it; without ``softmax`` the
    values themselves are taken. Refinement moves borders: only classes that win a pixel before it can win one after
    it. It works at the photo's size, or reduced to 512x512 pixels in all, and the guided filter fits its coefficients
    on a coarser grid (see :func:`~clippy_cli.inference.refine.guided.coarse_size`). Its radius is one patch, the
    distance over which upsampling blurs a border. Memory: 1 MB a class that wins, a few hundred MB beyond.

    The guided filter and PAMR run on the maps' device: the photo goes there once, at the working size, and the classes
    that win come back; the CRF's package computes on the host.
    """
    height, width = working_size(*image.shape[:2])
    small = resize_image(image, height, width)
    radius = max(1, round(height / maps.shape[1]))
    rows, columns = coarse_size(height, width, radius) if method is Refinement.GUIDED else (height, width)
    lookup = torch.tensor(classes, device=maps.device)
    won = torch.zeros(int(lookup.max()) + 1, dtype=torch.bool, device=maps.device)
    for _, _, logits in strips(maps, rows, columns, elements=_STRIP_ELEMENTS):
        won[lookup[logits.argmax(dim=0)]] = True
    kept = tuple(won.nonzero()[:, 0].tolist())
    probabilities = maps.new_empty(len(kept), rows, columns)
    for start, stop, logits in strips(maps, rows, columns, elements=_STRIP_ELEMENTS):
        values = logits.softmax(dim=0) if softmax else logits
        for place, kind in enumerate(kept):
            probabilities[place, start:stop] = values[lookup == kind].amax(dim=0)
    if len(kept) < _FEWEST and softmax:
        return Refined(probabilities, kept)
    return Refined(_METHODS[method](probabilities, small, radius).clamp_(max=1), kept)


def _guided(probabilities: Tensor, image: NDArray[np.uint8], radius: int) -> Tensor:
    if probabilities.device.type == "cpu":
        return torch.from_numpy(guided_filter(probabilities.numpy(), image, radius))
    pixels = torch.from_numpy(image).to(probabilities.device).permute(2, 0, 1)  # (H,W,3) -> (3,H,W)
    return guided_filter_on_device(probabilities, pixels, radius)


def _pamr(probabilities: Tensor, image: NDArray[np.uint8], radius: int) -> Tensor:
    photo = torch.from_numpy(image).to(probabilities.device).permute(2, 0, 1).float() / 255  # (H,W,3) -> (3,H,W)
    return pamr(probabilities, photo)


def _crf(probabilities: Tensor, image: NDArray[np.uint8], radius: int) -> Tensor:
    return torch.from_numpy(crf(probabilities.cpu().numpy(), image)).to(probabilities.device)


_METHODS: Mapping[Refinement, Callable[[Tensor, NDArray[np.uint8], int], Tensor]] = {
    Refinement.GUIDED: _guided,
    Refinement.PAMR: _pamr,
    Refinement.CRF: _crf,
}
