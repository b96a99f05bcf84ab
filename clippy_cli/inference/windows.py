"""Sliding windows whose scores are upsampled each and averaged pixel by pixel.

As the public code of SCLIP and of mmsegmentation does (``forward_slide``). Averaging embeddings on the patch grid, as
:func:`~clippy_cli.inference.features.dense_embeddings` does, is quicker and differs where windows overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.inference.features import model_input, window_starts
from clippy_cli.model.base import VisionLanguageModel


@dataclass(frozen=True)
class PixelWindows:
    """Windows of ``window`` pixels every ``stride`` pixels, the last ones moved back to the image's edges.

    A side that is shorter than a window is taken whole. Where a window's side is no multiple of the patch, the rest of
    less than a patch is not seen by the model, and its scores are those of the patches beside it.
    """

    window: int
    stride: int

    def encode(self, model: VisionLanguageModel, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """B images (H,W,3) uint8 of one size -> (B,n,h,w,D), the unit patches of each of the n windows."""
        crops = self.crops(model_input(model, images), model.preprocess.patch_size)
        return torch.stack([model.embed_patches(crop).float() for crop in crops], dim=1)

    def crops(self, pixels: Tensor, patch: int) -> Iterator[Tensor]:
        """(B,3,H,W) -> what the model sees of each window, sides cut to multiples of the patch."""
        for top, left, height, width in self._places(*pixels.shape[-2:]):
            yield pixels[..., top : top + height // patch * patch, left : left + width // patch * patch]

    def scores(self, windows: Tensor, score: Callable[[Tensor], Tensor], height: int, width: int) -> Tensor:
        """(n,h,w,D) windows of an image of height x width pixels -> (E,height,width), the mean of their scores.

        ``score`` maps (h,w,D) patches to (E,h,w). Memory is that of the result, and of one window.
        """

        def upsampled(patches: Tensor, rows: int, columns: int) -> Tensor:
            return F.interpolate(score(patches)[None], (rows, columns), mode="bilinear", align_corners=False)[0]

        return self.averaged(windows, upsampled, height, width)

    def averaged(
        self, windows: Tensor, predict: Callable[[Tensor, int, int], Tensor], height: int, width: int
    ) -> Tensor:
        """(n,...) windows -> (E,height,width), the mean of what ``predict`` makes of each: (E,rows,columns) pixels."""
        total: Tensor | None = None
        count = torch.zeros(height, width, device=windows.device)
        for window, (top, left, rows, columns) in zip(windows, self._places(height, width), strict=True):
            maps = predict(window, rows, columns)
            if total is None:
                total = maps.new_zeros(len(maps), height, width)
            total[:, top : top + rows, left : left + columns] += maps
            count[top : top + rows, left : left + columns] += 1
        assert total is not None
        return total.div_(count)

    def _places(self, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
        """Top, left, height and width of each window, row by row."""
        rows, columns = min(self.window, height), min(self.window, width)
        for top in window_starts(height, self.window, self.stride):
            for left in window_starts(width, self.window, self.stride):
                yield top, left, rows, columns
