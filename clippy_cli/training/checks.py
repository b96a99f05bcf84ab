"""What does not go together, found before anything starts."""

from __future__ import annotations

import torch

from clippy_cli.errors import ClippyError
from clippy_cli.model.classifier import read_classifier
from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.forward import check_precision
from clippy_cli.training.terms.self_distillation import student_tower


def check_launch(recipe: Recipe, device: torch.device, text_encoder: str | None, processes: Processes) -> None:
    """ClippyError where the recipe cannot run on this device, or its batch not be divided among ``processes``."""
    check_precision(recipe.train.precision, device, text_encoder)
    batch = recipe.train.batch_size
    if batch % processes.size:
        near = max(processes.size, round(batch / processes.size) * processes.size)
        raise ClippyError(
            f"train.batch_size is {batch}, of all processes together; {processes.size} of them cannot share it evenly.",
            f"Take a multiple of {processes.size}, such as --set train.batch_size={near}",
        )


def check_tower(recipe: Recipe, model: Clippy) -> None:
    """ClippyError where the recipe asks for what its trunk, its pooling or its weights cannot do."""
    train, image = recipe.train, model.image
    if train.classes.weight:
        read_classifier(image, recipe.model.image.init)
    if train.self_distillation.weight:
        side = train.self_distillation.resolution
        student_tower(image).grid_size(*((image.patch_size,) * 2 if side is None else (side, side)))
    if not train.gather_with_grad and not model.scores_are_dot_products:
        raise ClippyError(
            "train.gather_with_grad: false gives a wrong gradient under lse pooling: a row of scores depends on "
            "the texts of other processes.",
            "Set train.gather_with_grad: true.",
        )
    if not image.can_drop_tokens and (train.drop_rate or (train.final.share and train.final.drop_rate)):
        raise ClippyError(
            f"{image.config.trunk} is no plain vision transformer: clippy drops no tokens of it.",
            "Set train.drop_rate: 0.",
        )
    chunks = train.chunk_size is not None or (train.final.share > 0 and train.final.chunk_size is not None)
    if image.has_batch_norm and chunks and recipe.model.image.freeze == "none":
        raise ClippyError(
            f"{image.config.trunk} has batch normalisation, whose statistics belong to a whole batch; in chunks they "
            "would be others.",
            "Leave train.chunk_size out and use more processes, or a trunk without batch normalisation.",
        )
