"""Which mode, steered by which other model; and what that model sees of the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import Preprocess, VisionLanguageModel
from clippy_cli.model.choices import DenseMode
from clippy_cli.model.pooling import at_least_float32


@dataclass(frozen=True)
class Dense:
    """How patches are taken from the last block.

    Attributes:
        mode: which attention.
        proxy: the model whose patches steer it; for ``proxyclip``, and for it alone (see :func:`check_mode`).
    """

    mode: DenseMode = DenseMode.PLAIN
    proxy: VisionLanguageModel | None = None

    def proxy_patches(self, images: Tensor, preprocess: Preprocess) -> Tensor | None:
        """(B,3,H,W) pixels normalized by ``preprocess`` -> (B,h',w',F') patches of the proxy, or None without one."""
        return None if self.proxy is None else proxy_patches(self.proxy, images, preprocess)

    def describe(self, name: str) -> str:
        """What a model is called in results: ``clip``, ``clip+sclip``, ``clip+proxyclip(dino)``."""
        if self.mode is DenseMode.PLAIN:
            return name
        return f"{name}+{self.mode}" if self.proxy is None else f"{name}+{self.mode}({self.proxy.name})"


PLAIN = Dense()


def check_mode(mode: str, proxy: object | None) -> DenseMode:
    """The mode of that name; ClippyError where there is none, or where it and ``proxy`` do not go together."""
    if mode not in list(DenseMode):
        raise ClippyError(f"No dense mode {mode!r}; there are {', '.join(DenseMode)}.", "Check --dense.")
    found = DenseMode(mode)
    if found is DenseMode.PROXYCLIP and proxy is None:
        raise ClippyError(
            "The dense mode proxyclip takes its attention from another model, and none was given.",
            "Name one, such as: --proxy timm:vit_base_patch16_224.dino",
        )
    if found is not DenseMode.PROXYCLIP and proxy is not None:
        raise ClippyError(f"The dense mode {mode} uses no proxy.", "Leave the proxy out, or pass --dense proxyclip.")
    return found


@torch.no_grad()
def proxy_patches(proxy: VisionLanguageModel, images: Tensor, preprocess: Preprocess) -> Tensor:
    """(B,3,H,W) pixels normalized by ``preprocess`` -> the proxy's (B,h',w',F') patches of the same images.

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
