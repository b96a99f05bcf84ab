"""Which parameters learn, how fast, and by which rule."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import Lamb
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.recipe.schema import ModelRecipe, TrainRecipe

# Tables and single vectors that timm, open_clip and transformers name so; decay would only shrink them.
UNDECAYED = (
    "pos_embed",
    "cls_token",
    "reg_token",
    "positional_embedding",
    "position_embeddings",
    "relative_attention_bias",
)


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, schedule: str) -> float:
    """Share of the peak learning rate at 0-based ``step``: linear warm-up, then a half cosine to 0, or constant."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def freeze(model: Clippy, recipe: ModelRecipe, train: TrainRecipe) -> None:
    """Switch gradients off where the recipe freezes a tower, or keeps the logit scale."""
    for part in frozen_parts(model, recipe):
        part.requires_grad_(False)
    model.log_logit_scale.requires_grad_(train.logit_scale_lr != 0)


def frozen_parts(model: Clippy, recipe: ModelRecipe) -> list[nn.Module]:
    """The modules that keep their weights, which also stay in evaluation mode."""
    parts: list[nn.Module] = []
    if recipe.image.freeze != "none":
        parts.append(model.image.trunk)
    if recipe.image.freeze == "all":
        parts.append(model.image.projection)
    if recipe.text.freeze != "none":
        parts.append(model.text.encoder)
    if recipe.text.freeze == "all":
        parts.append(model.text.projection)
    return parts


def parameter_groups(model: Clippy, recipe: ModelRecipe, train: TrainRecipe) -> list[dict[str, Any]]:
    """Groups by peak learning rate and weight decay, in a stable order.

    Trunk and encoder follow ``model.image.lr`` and ``model.text.lr``, the logit scale ``train.logit_scale_lr``,
    projections ``train.lr``. Biases, norms, the logit scale, position tables and class tokens have no decay.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = train.lr
        if name.startswith("image.trunk."):
            rate = recipe.image.lr or train.lr
        elif name.startswith("text.encoder."):
            rate = recipe.text.lr or train.lr
        elif parameter is model.log_logit_scale:
            rate = train.lr if train.logit_scale_lr is None else train.logit_scale_lr
        decays = parameter.ndim >= 2 and not any(table in name for table in UNDECAYED)
        groups.setdefault((rate, train.weight_decay if decays else 0.0), []).append(parameter)
    if not any(parameter is not model.log_logit_scale for group in groups.values() for parameter in group):
        raise ClippyError(
            "Nothing is left to train: both towers are frozen and neither has a projection that learns.",
            "Set model.image.freeze or model.text.freeze to none, or choose an architecture with a projection.",
        )
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def build_optimizer(groups: list[dict[str, Any]], train: TrainRecipe, device: torch.device) -> torch.optim.Optimizer:
    """AdamW, or timm's LAMB with its own gradient clipping off: the loop clips, once."""
    if train.optimizer == "lamb":
        lamb: torch.optim.Optimizer = Lamb(groups, lr=train.lr, betas=train.betas, max_grad_norm=None)
        return lamb
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group ``factor`` times its own peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
