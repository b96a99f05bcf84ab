"""Several looks at one image (scales, its mirror image, sliding windows) and their average on one patch grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.images import dense_size, resize_image
from clippy_cli.errors import ClippyError
from clippy_cli.inference.features import dense_embeddings
from clippy_cli.model.base import VisionLanguageModel

MAX_SCALES = 8
SCALE_LIMITS = (0.1, 8.0)
_SCALES_HINT = "Write factors of the resolution as in --scales 1,1.5,2."


@dataclass(frozen=True)
class Views:
    """How an image is looked at.

    Attributes:
        scales: factors of the short side, each one a view.
        flip: whether each view is also taken mirrored left to right.
        window, stride: of sliding windows within each view, in pixels and multiples of the patch; None for none.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    stride: int | None = None

    def short_side(self, resolution: int) -> int:
        """The short side in pixels of the largest view, where scale 1 has ``resolution``."""
        return max(1, round(resolution * max(self.scales)))


def view_embeddings(model: VisionLanguageModel, images: Sequence[NDArray[np.uint8]], views: Views) -> Tensor:
    """B images (H,W,3) uint8 at the size of the largest view -> (B,h,w,D) on the model's device, the mean over views.

    Smaller views are made from the largest by an antialiased bicubic filter; their embeddings are resized bilinearly to
    the largest view's grid, mirrored ones turned back. All of this is linear, so a dot product with a text is the mean
    of the views' cosines, exactly. Memory is four tensors of the largest grid, (B,h,w,D), whatever the number of views.
    """
    height, width = images[0].shape[:2]
    total: Tensor | None = None
    for scale in views.scales:
        sized = [_scaled(image, scale / max(views.scales), model.preprocess.patch_size) for image in images]
        for mirrored in (False, True) if views.flip else (False,):
            seen = [np.ascontiguousarray(image[:, ::-1]) for image in sized] if mirrored else sized
            part = dense_embeddings(model, seen, window=views.window, stride=views.stride)
            part = _on_grid(part.flip(2) if mirrored else part, height, width, model.preprocess.patch_size)
            total = part if total is None else total + part
    assert total is not None
    return total / (len(views.scales) * (2 if views.flip else 1))


def parse_scales(text: str) -> tuple[float, ...]:
    """Read ``1,1.5,2``; ClippyError where it is no list of up to eight different factors from 0.1 to 8."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ClippyError(f"--scales cannot be {text!r}", _SCALES_HINT) from None
    check_scales(scales, text)
    return scales


def check_scales(scales: Sequence[float], text: str | None = None) -> None:
    """ClippyError unless these are one to eight different factors from 0.1 to 8; ``text`` is how they were written."""
    low, high = SCALE_LIMITS
    given = len(set(scales)) == len(scales) and all(low <= scale <= high for scale in scales)
    if not given or not 1 <= len(scales) <= MAX_SCALES:
        written = text or ",".join(f"{scale:g}" for scale in scales)
        raise ClippyError(
            f"--scales takes up to {MAX_SCALES} different factors from {low:g} to {high:g}: {written}",
            _SCALES_HINT,
        )


def fit_windows(window: int | None, stride: int | None, patch_size: int) -> tuple[int | None, int | None]:
    """Window and stride in pixels, rounded to multiples of the patch; without a stride windows stand side by side.

    ClippyError where the stride would leave gaps.
    """
    if window is None:
        return None, None
    if stride is not None and stride > window:
        raise ClippyError(f"A stride of {stride} pixels leaves gaps between windows of {window}", "Lower --stride.")
    rounded = max(patch_size, round(window / patch_size) * patch_size)
    return rounded, min(max(patch_size, round((stride or rounded) / patch_size) * patch_size), rounded)


def _scaled(image: NDArray[np.uint8], factor: float, patch_size: int) -> NDArray[np.uint8]:
    if factor == 1:
        return image
    height, width = image.shape[:2]
    return resize_image(image, *dense_size(height, width, max(1, round(min(height, width) * factor)), patch_size))


def _on_grid(patches: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """(B,h',w',D) -> (B,h,w,D), the grid of an image of height x width pixels."""
    size = height // patch_size, width // patch_size
    if patches.shape[1:3] == size:
        return patches
    maps = F.interpolate(patches.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)  # (B,D,h,w)
    return maps.permute(0, 2, 3, 1)
