"""Image-text retrieval as on Flickr30k and COCO captions: several captions an image. I images, T captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_CHUNK = 2**22  # scores compared at once


def ranks_before(scores: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """How many wrong answers come before the right one: (I,) captions for each image, (T,) images for each caption.

    ``scores`` (I,T) compares all images with all captions, ``owner`` (T,) is the image of each caption. For an image
    the best of its captions counts. Ties and NaN come before what is sought, so they never favor the model.

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


def recalls_by_image(scores: Tensor, owner: Tensor, ks: Sequence[int]) -> list[dict[str, float]]:
    """What each of the I images adds to the recalls of a set, from scores as of :func:`ranks_before`.

    ``image_to_text_rK`` is 1 where one of its captions is among its K best, else 0; ``text_to_image_rK`` is the share
    of its captions for which it is among the K best images; ``captions`` is how many it has. Empty without captions.
    """
    captions_before, images_before = ranks_before(scores, owner)
    found: list[dict[str, float]] = []
    for image, before in enumerate(captions_before.tolist()):
        own = images_before[owner == image]
        record: dict[str, float] = {}
        if len(own):
            record = {f"image_to_text_r{k}": float(before < k) for k in ks}
            record |= {f"text_to_image_r{k}": float((own < k).double().mean()) for k in ks}
            record["captions"] = float(len(own))
        found.append(record)
    return found


def pooled_recalls(images: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The recalls of a set in [0, 1] from :func:`recalls_by_image`; empty where no image has captions.

    Images weigh alike from image to text, captions alike from text to image.
    """
    counted = [record for record in images if record.get("captions")]
    captions = sum(record["captions"] or 0.0 for record in counted)
    recalls: dict[str, float] = {}
    for name in counted[0] if counted else ():
        if name.startswith("image_to_text"):
            recalls[name] = math.fsum(record[name] or 0.0 for record in counted) / len(counted)
        elif name.startswith("text_to_image"):
            recalls[name] = sum((record[name] or 0.0) * (record["captions"] or 0.0) for record in counted) / captions
    return recalls
