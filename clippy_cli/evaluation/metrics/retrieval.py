"""Image-text retrieval as on Flickr30k and COCO captions: several captions an image. I images, T captions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 2**22  # scores compared at once


def ranks_before(scores: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """How many wrong answers come before the right one: (I,) captions for each image, (T,) images for each caption.

    ``scores`` (I,T) compares all images with all captions, ``owner`` (T,) is the image of each caption. For an image
    the best of its captions counts. Ties and NaN come before what is sought, so they never favour the model.

    Raises:
        ValueError: an owner outside 0..I-1, or not one for each caption.
    """
    images, captions = scores.shape
    if owner.shape != (captions,) or bool(((owner < 0) | (owner >= images)).any()):
        raise ValueError(f"owner must name one of {images} images for each of {captions} captions")
    device = scores.device
    own = scores[owner, torch.arange(captions, device=device)]  # (T,)
    captions_before = torch.zeros(images, dtype=torch.int64, device=device)
    images_before = torch.full((captions,), -1, dtype=torch.int64, device=device)  # its own image is not before itself
    step = max(1, _CHUNK // max(1, captions))
    for start in range(0, images if captions else 0, step):
        block = scores[start : start + step]  # (b,T)
        images_before += (~(block < own)).sum(dim=0)
        theirs = owner == torch.arange(start, start + len(block), device=device).unsqueeze(1)  # (b,T)
        best = torch.where(theirs & ~block.isnan(), block, -math.inf).amax(dim=1, keepdim=True)  # (b,1)
        captions_before[start : start + len(block)] = (~(block < best) & ~theirs).sum(dim=1)
    return captions_before, images_before
