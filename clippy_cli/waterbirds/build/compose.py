"""One object on one background, by the arithmetic of the published generator.

That is crop_and_resize and combine_and_mask of dataset_scripts/dataset_utils.py in kohpangwei/group_DRO.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.images import MAX_PIXELS
from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.build.foregrounds import Mask


def compose(image: NDArray[np.uint8], mask: Mask, background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Paste an object on a background of any size: (H,W,3), (H,W), (H',W',3) -> (H,W,3) uint8.

    ``mask`` is bool, or opacity from 0 to 255. Object and background are weighted and rounded each for itself, as
    published; where both round up beyond 255 the sum stays there. ClippyError as :func:`fit_background`.
    """
    height, width = mask.shape
    opacity = (mask / (1.0 if mask.dtype == np.bool_ else 255.0))[..., None]  # (H,W) -> (H,W,1)
    behind = fit_background(background, height, width)
    blended: NDArray[np.float64] = np.rint(image * opacity) + np.rint(behind * (1.0 - opacity))
    return blended.clip(max=255.0).astype(np.uint8)


def fit_background(background: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H',W',3) -> (height,width,3) uint8: enlarged until it covers, cropped about the centre, shrunk by Lanczos.

    ClippyError where the enlarged background would be larger than an image may be.
    """
    picture = _covering(Image.fromarray(background), height, width)
    across, down = picture.size
    if across / down > width / height:
        margin = (across - int(width / height * down)) // 2
        box = (margin, 0, across - margin, down)
    else:
        margin = (down - int(across / (width / height))) // 2
        box = (0, margin, across, down - margin)
    fitted = picture.crop(box).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(fitted, dtype=np.uint8)


def _covering(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The picture, enlarged to the width or else the height where it is smaller than (height,width) in either."""
    across, down = picture.size
    if across >= width and down >= height:
        return picture
    size = (width, int(width / across * down))
    if size[1] < height:
        size = (max(width, int(height / down * across)), height)
    if size[0] * size[1] > MAX_PIXELS:
        raise ClippyError(
            f"A background of {across}x{down} pixels would have to grow to {size[0]}x{size[1]} for an object's photo "
            f"of {width}x{height}",
            "Leave out backgrounds that are so small or narrow.",
        )
    return picture.resize(size, Image.Resampling.LANCZOS)
