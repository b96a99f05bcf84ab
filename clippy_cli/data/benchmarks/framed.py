"""Sets of which a square of each photo is seen: the middle, as torchvision's Resize and CenterCrop cut it.

Masks are squashed to the same square instead of being cut likewise, so that photo and mask do not meet pixel by pixel.
That is how the CLIPpy authors' notebook measures VOC (kahnchana/clippy, notebooks/evaluate.ipynb with
src/evaluation/utils.py), and it is here to repeat their figure; it is no way to measure anything else.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.benchmarks.base import (
    AnnotatedSet,
    ClassificationSet,
    ClassifiedImage,
    ImageSet,
    SegmentationSet,
    SegmentedImage,
)
from clippy_cli.data.images import resize_image
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices


class Frame(StrEnum):
    """What of a photo is seen: all of it, or its middle square with the whole mask squashed to that square."""

    WHOLE = "whole"
    SQUASHED_MASKS = "squashed-masks"


def framed(images: ImageSet, frame: Frame, side: int) -> ImageSet:
    """The set as seen through ``frame``, in squares of ``side`` pixels; ClippyError where its annotation has none."""
    if frame is Frame.WHOLE:
        return images
    if images.kind == "segmentation":
        return _SegmentedSquares(images, side)
    if images.kind == "classification":
        return _ClassifiedSquares(images, side)
    raise ClippyError(
        f"A protocol with frame: {frame} measures masks and classes; {images.info.name} has neither.",
        "Choose another --protocol.",
    )


def middle_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> (side,side,3): the short side resized to ``side`` at the same aspect, then the middle of it.

    The longer side is rounded down and half a pixel of margin to the even number, as in torchvision.
    """
    short = min(image.shape[:2])
    height, width = (int(side * length / short) for length in image.shape[:2])
    top, left = round((height - side) / 2), round((width - side) / 2)
    return resize_image(image, height, width)[top : top + side, left : left + side]


def squashed(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H,W) classes -> (side,side) classes of the nearest pixels, whatever the aspect."""
    return np.array(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST), dtype=np.uint8)


S = TypeVar("S", bound=AnnotatedSet)


class _Squares(AnnotatedSet, Generic[S]):
    """All that a set seen in squares has in common with the set itself."""

    def __init__(self, images: S, side: int) -> None:
        self.info = images.info
        self._images, self._side = images, side

    @property
    def notices(self) -> Notices:  # those of the set, which may go on filling them
        return self._images.notices

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        return self._images.key(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._images.files(index)


class _SegmentedSquares(_Squares[SegmentationSet], SegmentationSet):
    def __init__(self, images: SegmentationSet, side: int) -> None:
        super().__init__(images, side)
        self.classes, self.background, self.context = images.classes, images.background, images.context

    def read(self, index: int) -> SegmentedImage:
        sample = self._images.read(index)
        image, mask = middle_square(sample.image, self._side), squashed(sample.mask, self._side)
        return replace(sample, image=image, mask=mask)


class _ClassifiedSquares(_Squares[ClassificationSet], ClassificationSet):
    def __init__(self, images: ClassificationSet, side: int) -> None:
        super().__init__(images, side)
        self.classes = images.classes

    def read(self, index: int) -> ClassifiedImage:
        sample = self._images.read(index)
        return replace(sample, image=middle_square(sample.image, self._side))
