"""The features of one model's image, for another model's attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.model.base import Preprocess, VisionLanguageModel
from clippy_cli.model.pooling import at_least_float32


@torch.no_grad()
def proxy_patches(proxy: VisionLanguageModel, images: Tensor, preprocess: Preprocess) -> Tensor:
    """(B,3,H,W) pixels normalised by ``preprocess`` -> the proxy's (B,h',w',F') patches of the same images.

    The pixels go from one mean and deviation to the other's by one exact affine map. Where the proxy's patch does
    not divide a side, the image is resized to the nearest size that it divides.
    """
    mean, std, other_mean, other_std = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
        for values in (preprocess.mean, preprocess.std, proxy.preprocess.mean, proxy.preprocess.std)
    )
    images = at_least_float32(images).to(proxy.device)
    pixels = images * (std / other_std).to(images) + ((mean - other_mean) / other_std).to(images)
    patch = proxy.preprocess.patch_size
    size = [max(1, round(side / patch)) * patch for side in images.shape[-2:]]
    if size != list(images.shape[-2:]):
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return proxy.embed_patches(pixels)


def dense_name(name: str, mode: str, proxy: VisionLanguageModel | None) -> str:
    """What a model is called in results: ``clip``, ``clip+sclip``, ``clip+proxyclip(dino)``."""
    if mode == "plain":
        return name
    return f"{name}+{mode}" if proxy is None else f"{name}+{mode}({proxy.name})"
