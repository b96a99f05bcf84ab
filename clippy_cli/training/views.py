"""Two random crops of a picture that differ in place, size and color, for losses that compare an image with itself.

The draws follow a generator of their own, so that switching them on leaves the training images as they were.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.pictures import Picture
from clippy_cli.data.transforms import TrainTransform

VIEWS = 2
JITTERED, GRAY, BLURRED = 0.8, 0.2, 0.3  # shares of the crops
BLUR_SIGMA = (0.1, 1.5)  # pixels
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class ViewTransform:
    """A picture of any size -> (2,side,side,3) uint8 RGB: cropped, mirrored, recolored, grayed and blurred at random.

    ``crop_scale`` is the range of the crop's share of the image area. Brightness and contrast change by a factor
    within 1 ± ``color_jitter``, saturation within half of that. ClippyError where the picture is damaged.
    """

    def __init__(self, crop_scale: tuple[float, float], color_jitter: float) -> None:
        self._crop = TrainTransform(crop_scale, flip=True)
        self._jitter = color_jitter

    def __call__(self, picture: Picture, rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
        return np.stack([self._recolored(self._crop(picture, rng, side), rng) for _ in range(VIEWS)])

    def _recolored(self, crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        pixels = crop.astype(np.float32)
        if rng.random() < JITTERED:
            brightness, contrast = rng.uniform(1 - self._jitter, 1 + self._jitter, 2)
            saturation = rng.uniform(1 - self._jitter / 2, 1 + self._jitter / 2)
            pixels *= brightness
            pixels = _blend(pixels, np.float32((pixels @ _LUMA).mean()), contrast)
            pixels = _blend(pixels, (pixels @ _LUMA)[..., None], saturation)
        if rng.random() < GRAY:
            pixels = np.repeat((pixels @ _LUMA)[..., None], 3, axis=2)
        if rng.random() < BLURRED:
            sigma = rng.uniform(*BLUR_SIGMA)
            pixels = np.asarray(cv2.GaussianBlur(pixels, (5, 5), sigma), np.float32)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _blend(pixels: NDArray[np.float32], other: NDArray[np.float32] | np.float32, share: float) -> NDArray[np.float32]:
    """``share`` of the pixels and the rest of ``other``; a share above 1 goes beyond the pixels."""
    mixed: NDArray[np.float32] = (share * pixels + (1 - share) * other).astype(np.float32)
    return mixed
