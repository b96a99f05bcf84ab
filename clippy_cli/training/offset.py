"""How far pooled image vectors lie from the patch vectors that they were pooled from.

Channel-wise max shifts the pooled vector away from the tokens by a nearly constant vector, so that the cosine of
patches and texts may favour one class everywhere. Inference can subtract the mean patch token measured here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import ALONE, Processes
from clippy_cli.training.forward import image_features, tower_inputs
from clippy_cli.training.loader import Batch


@dataclass(frozen=True)
class Offset:
    """Over ``images`` training images: the mean token (D,), not normalised, and cos(mean pooled, mean patch)."""

    patch_mean: Tensor
    pooled_patch_cosine: float
    images: int


@torch.no_grad()
def measure_offset(model: Clippy, batches: Iterable[Batch], processes: Processes = ALONE) -> Offset:
    """Measure the offset on whole, unaugmented images, all tokens kept. Pooled vectors have unit norm.

    Each process brings batches of its own, and all get the same answer.
    """
    patch_sum = torch.zeros(model.config.embed_dim, dtype=torch.float64)
    pooled_sum = torch.zeros_like(patch_sum)
    images = 0
    for batch in batches:
        if len(batch):
            features = image_features(model, tower_inputs(model, batch, None, slice(None), None))
            tokens = model.image.project(features).float()  # (B,P+N,D)
            patch_sum += tokens[:, model.image.num_prefix_tokens :].mean(dim=1).sum(dim=0).double().cpu()
            pooled_sum += model.pool(tokens).sum(dim=0).double().cpu()
            images += len(batch)
    parts = processes.gather((patch_sum, pooled_sum, images))
    patch_sum = torch.stack([patches for patches, _, _ in parts]).sum(dim=0)
    pooled_sum = torch.stack([pooled for _, pooled, _ in parts]).sum(dim=0)
    images = sum(count for _, _, count in parts)
    cosine = torch.nn.functional.cosine_similarity(pooled_sum, patch_sum, dim=0)
    return Offset((patch_sum / max(1, images)).float(), float(cosine), images)
