"""How far pooled image vectors lie from the patch vectors that they were pooled from.

Channel-wise max shifts the pooled vector away from the tokens by a nearly constant vector, so that the cosine of
patches and texts may favour one class everywhere. Inference can subtract the mean patch token measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import ALONE, Processes
from clippy_cli.training.events import ShouldStop, Stop, StopRequested
from clippy_cli.training.forward import image_features, tower_inputs
from clippy_cli.training.loader import Batch


@dataclass(frozen=True)
class Offset:
    """Over ``images`` training images: the mean token (D,), not normalised, and cos(mean pooled, mean patch).

    Under cls+avg the pooled vector's second half is compared, which is of patches.
    """

    patch_mean: Tensor
    pooled_patch_cosine: float
    images: int


@torch.no_grad()
def measure_offset(
    model: Clippy,
    batches: Iterable[Batch],
    processes: Processes = ALONE,
    *,
    should_stop: ShouldStop = lambda: Stop.GO_ON,
    on_images: Callable[[int], None] = lambda count: None,
) -> Offset:
    """Measure the offset on whole, unaugmented images, all tokens kept. Pooled vectors have unit norm.

    Each process brings batches of its own, and all get the same answer. ``on_images`` hears how many are done here.
    StopRequested in all processes where the caller of one asks to stop.
    """
    patch_sum = torch.zeros(model.config.patch_dim, dtype=torch.float64)
    pooled_sum = torch.zeros_like(patch_sum)
    images = 0
    stop = Stop.GO_ON
    for batch in batches:
        if stop := Stop(should_stop()):
            break
        if len(batch):
            features = image_features(model, tower_inputs(model, batch, None, slice(None), None))
            tokens = model.image.project(features).float()  # (B,P+N,D)
            patch_sum += tokens[:, model.image.num_prefix_tokens :].mean(dim=1).sum(dim=0).double().cpu()
            pooled_sum += model.pool(tokens)[:, -len(patch_sum) :].sum(dim=0).double().cpu()
            images += len(batch)
            on_images(images)
    parts = processes.gather((patch_sum, pooled_sum, images, stop))
    if stop := max(part[3] for part in parts):
        raise StopRequested(stop)
    patch_sum = torch.stack([part[0] for part in parts]).sum(dim=0)
    pooled_sum = torch.stack([part[1] for part in parts]).sum(dim=0)
    images = sum(part[2] for part in parts)
    cosine = torch.nn.functional.cosine_similarity(pooled_sum, patch_sum, dim=0)
    return Offset((patch_sum / max(1, images)).float(), float(cosine), images)
