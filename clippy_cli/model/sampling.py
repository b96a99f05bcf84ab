"""Token sub-sampling (CLIPpy, section 3.3): which patch tokens a training image keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def num_kept(num_patches: int, drop_rate: float) -> int:
    """Patches left of ``num_patches`` when the fraction ``drop_rate`` in [0, 1) is dropped; at least one.

    The nearest whole number: 157 of the 784 patches of 448 pixels at 0.8. open_clip's ``PatchDropout``, which the
    authors' public code trains with, takes ``int(784 * (1 - 0.8))``: 156, and 9 of 100 at 0.9, where this gives 10.
    """
    if not 0.0 <= drop_rate < 1.0:
        raise ValueError(f"drop_rate is {drop_rate}; it must be at least 0 and below 1")
    return max(1, round(num_patches * (1.0 - drop_rate)))


def draw_keep_indices(
    batch: int,
    num_patches: int,
    drop_rate: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """One uniform draw without replacement for each image: (B,K) ascending int64 patch indices on ``device``.

    ``generator`` must live on the same device; with equal seeds the draws are equal.
    """
    kept = num_kept(num_patches, drop_rate)
    noise = torch.rand(batch, num_patches, generator=generator, device=device)
    return noise.argsort(dim=1)[:, :kept].sort(dim=1).values  # (B,N) -> (B,K)


def gather_patches(images: Tensor, keep: Tensor, patch_size: int) -> Tensor:
    """Pixels of the patches at ``keep``: (B,C,H,W) of any type and layout, (B,K) row-major indices -> (B,K,C,p,p).

    H and W are multiples of p. Only what is kept is copied.
    """
    grid = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (B,C,h,w,p,p), a view
    row, column = keep // grid.shape[3], keep % grid.shape[3]
    image = torch.arange(len(keep), device=keep.device).unsqueeze(1)
    return grid.permute(0, 2, 3, 1, 4, 5)[image, row, column]  # (B,h,w,C,p,p) -> (B,K,C,p,p)


def gather_tokens(tokens: Tensor, keep: Tensor, num_prefix: int) -> Tensor:
    """Keep all P prefix tokens and the patches at ``keep``: (B,P+N,D), (B,K) -> (B,P+K,D)."""
    prefix, patches = tokens[:, :num_prefix], tokens[:, num_prefix:]
    kept = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))  # (B,K,D)
    return torch.cat([prefix, kept], dim=1)
