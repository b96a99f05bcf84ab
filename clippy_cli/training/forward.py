"""From a batch to what the loss compares: precision, compilation, frozen towers, token sub-sampling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.compat.torch import allow_recompilations, repeated_blocks
from clippy_cli.model.pooling import normalized
from clippy_cli.model.sampling import gather_patches
from clippy_cli.recipe.schema import ModelRecipe
from clippy_cli.training.loader import Batch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TEXT_STEP = 128
COMPILED_SHAPES = 64  # chunks, resolutions, drop rates, with and without gradient; beyond, a block would run uncompiled


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


def compile_towers(model: Clippy) -> None:
    """Compile the repeated blocks of both towers in place, each shape once; names of parameters stay as they are.

    Blocks of a kind share their code, so that compiling takes the time of one. Shapes are taken as fixed: there are few
    of them, since batches are whole, kept tokens a fixed number, and texts padded by :func:`padded_length`.
    """
    allow_recompilations(COMPILED_SHAPES)
    for tower in (model.image.trunk, model.text.encoder):
        for block in repeated_blocks(tower):
            block.compile(dynamic=False)


@dataclass(frozen=True)
class TowerInputs:
    """What the towers take of a batch or a chunk of it, on their device; of each pair one is there.

    Attributes:
        pixels: (B,3,R,R) uint8 images, or (B,K,3,p,p) uint8 patches where ``keep`` says which of the ``grid`` they are.
        features: (B,P+K,F) stored trunk tokens.
        keep: (B,K) patch indices, or None where all are there.
        token_ids: (B,L).
        text_features: (B,F) stored encoder output.
    """

    pixels: Tensor | None
    features: Tensor | None
    keep: Tensor | None
    grid: tuple[int, int]
    token_ids: Tensor | None
    text_features: Tensor | None


def padded_length(length: int, context: int) -> int:
    """Tokens that texts of up to ``length`` are padded to for compiled towers: multiples of 128, at most the context.

    One shape for a context of 77, as in CLIP; two for the 256 of Sentence-T5, whose captions are seldom that long.
    """
    return min(context, -(-length // _TEXT_STEP) * _TEXT_STEP)


def tower_inputs(model: Clippy, batch: Batch, keep: Tensor | None, rows: slice, text_length: int | None) -> TowerInputs:
    """The ``rows`` of a batch, moved to the model's device; of the pixels only the kept patches stay there.

    With ``text_length``, the context, texts are padded by :func:`padded_length`: compiled towers meet few shapes.
    """
    device, grid = model.device, (0, 0)
    pixels = features = token_ids = texts = None
    kept = None if keep is None else keep[rows]
    if batch.images is not None:
        pixels = batch.images[rows].to(device, non_blocking=True)
        grid = model.image.grid_size(pixels.shape[-2], pixels.shape[-1])
        if kept is not None and model.image.takes_patches:
            pixels = gather_patches(pixels, kept, model.image.patch_size)  # (B,K,3,p,p)
    elif batch.features is not None:
        features = batch.features[rows].to(device, non_blocking=True)
    if batch.text_features is not None:
        texts = batch.text_features[rows].to(device, non_blocking=True)
    elif batch.token_ids is not None:
        ids = batch.token_ids[rows]
        if text_length is not None:
            more = padded_length(ids.shape[1], text_length) - ids.shape[1]
            ids = torch.nn.functional.pad(ids, (0, more), value=model.text.tokenize.pad_id or 0)
        token_ids = ids.to(device, non_blocking=True)
    return TowerInputs(pixels, features, kept, grid, token_ids, texts)


def tower_inputs_in_chunks(
    model: Clippy, batch: Batch, keep: Tensor | None, chunk_size: int | None, text_length: int | None
) -> list[TowerInputs]:
    """:func:`tower_inputs` of ``chunk_size`` rows each, or of the whole batch."""
    size = chunk_size or len(batch)
    return [
        tower_inputs(model, batch, keep, slice(start, start + size), text_length)
        for start in range(0, len(batch), size)
    ]


def image_features(model: Clippy, inputs: TowerInputs) -> Tensor:
    """(B,P+K,F) trunk tokens, computed or as they were stored."""
    if inputs.features is not None:
        return inputs.features.to(model.patch_mean.dtype)
    assert inputs.pixels is not None
    pixels = model.preprocess.normalize(inputs.pixels).to(model.patch_mean.dtype)
    if pixels.ndim == 4:
        return model.image.features(pixels, inputs.keep)
    assert inputs.keep is not None
    return model.image.patch_features(pixels, inputs.keep, inputs.grid)


class Embeddings(nn.Module):
    """Both towers up to what the loss compares; what a launch of several processes wraps.

    A score that is a dot product needs one vector an image: the first output is then (B,D), unit norm. Under ``lse``
    it is (B,K,D), the unit patch vectors. The second is (B,D), unit texts; then the logit scale and the logit bias.
    ``learning_only`` leaves out (None) what no gradient would pass through.
    """

    def __init__(self, model: Clippy, recipe: ModelRecipe, precision: str, logit_bias: float | None) -> None:
        super().__init__()
        self.model = model
        self._learns = (recipe.image.freeze == "none", recipe.text.freeze == "none")
        self._precision = precision
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias, device=model.device))

    def forward(
        self, inputs: TowerInputs, learning_only: bool = False
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        image, text = (
            not learning_only or any(parameter.requires_grad for parameter in tower.parameters())
            for tower in (self.model.image, self.model.text)
        )
        with autocast(self._precision, self.model.device):
            images, texts = self._images(inputs) if image else None, self._texts(inputs) if text else None
        scale = self.model.log_logit_scale.exp()
        bias = torch.zeros_like(scale) if self.logit_bias is None else self.logit_bias * 1.0
        return images, texts, scale, bias

    def _images(self, inputs: TowerInputs) -> Tensor:
        model = self.model
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._learns[0]):
            features = image_features(model, inputs)
        tokens = model.image.project(features)
        if model.scores_are_dot_products:
            return model.pool(tokens)
        return normalized(tokens[:, model.image.num_prefix_tokens :])

    def _texts(self, inputs: TowerInputs) -> Tensor:
        model = self.model
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._learns[1]):
            features = inputs.text_features
            if features is None:
                assert inputs.token_ids is not None
                features = model.text.features(inputs.token_ids)
        return normalized(model.text.project(features))
