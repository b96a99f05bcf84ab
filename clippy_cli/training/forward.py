"""From a batch to tokens and text vectors: precision, frozen towers, token sub-sampling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.pooling import normalized
from clippy_cli.recipe_schema import ModelRecipe
from clippy_cli.training.loader import Batch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, device: torch.device, text_encoder: str | None) -> None:
    """ClippyError where ``precision`` does not work on ``device`` or in the text encoder."""
    if precision == "fp16" and device.type != "cuda":
        raise ClippyError(
            f"train.precision: fp16 needs a CUDA device; this run is on {device.type}.", "Use bf16 or fp32."
        )
    if precision == "fp16" and text_encoder == "t5":
        raise ClippyError("train.precision: fp16 overflows in a T5 text tower.", "Use bf16 or fp32.")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The arithmetic of the towers; losses and scores stay in float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


def image_features(model: Clippy, batch: Batch, keep: Tensor | None) -> Tensor:
    """(B,P+K,F) trunk tokens of a batch, from its images and ``keep``, or as they were stored."""
    if batch.features is not None:
        return batch.features.to(model.device).float()
    assert batch.images is not None
    images = batch.images.to(model.device, non_blocking=True)
    return model.image.features(model.preprocess.normalize(images), keep)


def embed_batch(model: Clippy, recipe: ModelRecipe, batch: Batch, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B,P+K,D) image tokens and (B,D) unit text vectors; no graph is kept through frozen towers."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and recipe.image.freeze == "none"):
        features = image_features(model, batch, keep)
    tokens = model.image.project(features)
    with torch.set_grad_enabled(torch.is_grad_enabled() and recipe.text.freeze == "none"):
        if batch.text_features is not None:
            text_features = batch.text_features.to(model.device)
        else:
            captions = [captions[0] for captions in batch.captions]
            text_features = model.text.features(model.text.tokenize(captions).to(model.device))
    return tokens, normalized(model.text.project(text_features))
