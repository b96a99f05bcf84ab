"""From a picture of any size to the square that a training step takes."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.pictures import REDUCTIONS, Picture

_ASPECTS = (3 / 4, 4 / 3)
_TRIES = 10


class TrainTransform:
    """A picture of any size -> (side,side,3) uint8 RGB: crop, resize, and mirror at random.

    ``crop_scale`` is the range of the crop's share of the image area, at an aspect between 3:4 and 4:3, as in
    torchvision's RandomResizedCrop. With (1, 1) it is the largest centred square and nothing is drawn for it, so that
    without ``flip`` the result does not depend on the random generator. What is drawn depends on the picture's size
    alone. The picture may be decoded smaller, as long as no crop is enlarged because of that. ClippyError where it is
    damaged.
    """

    def __init__(self, crop_scale: tuple[float, float] = (1.0, 1.0), flip: bool = False) -> None:
        self._crop_scale = crop_scale
        self._flip = flip

    def __call__(self, picture: Picture, rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
        box = _centred_square(picture.height, picture.width)
        if self._crop_scale != (1.0, 1.0):
            box = _random_box(picture.height, picture.width, self._crop_scale, rng) or box
        image = picture.pixels(choose_reduction(min(box[2:]), side))
        top, height = _scaled(box[0], box[2], picture.height, image.shape[0])
        left, width = _scaled(box[1], box[3], picture.width, image.shape[1])
        square = _resize(image[top : top + height, left : left + width], side)
        if self._flip and draw_flip(rng):
            square = square[:, ::-1]
        return np.ascontiguousarray(square)


def choose_reduction(short_side: int, side: int) -> int:
    """The largest reduction after which a crop's ``short_side`` still has ``side`` pixels; 1 where none does."""
    return max((reduction for reduction in REDUCTIONS if short_side >= reduction * side), default=1)


def draw_flip(rng: np.random.Generator) -> bool:
    """Whether to mirror: true half of the time; the only draw where the crop is fixed."""
    return bool(rng.random() < 0.5)


def _centred_square(height: int, width: int) -> tuple[int, int, int, int]:
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _random_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) in pixels; None where no drawn box fits into the picture."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1])))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
            return int(top), int(left), box_height, box_width
    return None


def _scaled(start: int, length: int, old: int, new: int) -> tuple[int, int]:
    """Start and length of an interval of ``old`` pixels, in whole pixels once they have become ``new``."""
    scaled = round(length * new / old)
    return min(round(start * new / old), new - scaled), scaled


def _resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    method = cv2.INTER_AREA if side * side < height * width else cv2.INTER_CUBIC
    resized: NDArray[np.uint8] = cv2.resize(image, (side, side), interpolation=method)
    return resized
