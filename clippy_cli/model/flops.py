"""Floating-point operations of a model; over the peak rate of its device (``device.py``), model FLOP utilization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clippy_cli.model.clippy import Clippy

_CLIP_CONTEXT = 77


@dataclass(frozen=True)
class ForwardFlops:
    """Operations (two a multiply-add) of one image and of one caption through their towers; the loss is left out."""

    image: float
    text: float


def image_flops(model: Clippy, resolution: int, kept_patches: int | None = None) -> float:
    """Count one forward pass of the image tower: matrix products, convolutions and attention; nothing elementwise.

    Args:
        model: on any device; its mode, buffers and the random generators are left as they are.
        resolution: side of the square image in pixels.
        kept_patches: patches left by token sub-sampling; None where all are embedded.
    """
    images = torch.zeros(1, 3, resolution, resolution, device=model.device)
    keep = None if kept_patches is None else torch.arange(kept_patches, device=model.device).unsqueeze(0)
    with _plain_evaluation(model), FlopCounterMode(display=False) as counter:
        model.image_tokens(images, keep)
    return float(counter.get_total_flops())


def planned_text_length(model: Clippy) -> int:
    """Tokens that a plan counts for a caption: the context, but no more than CLIP's 77, which few captions exceed."""
    return min(model.text.config.context_length, _CLIP_CONTEXT)


def text_flops(model: Clippy, text_length: int) -> float:
    """The same of the text tower and a caption of ``text_length`` tokens, padding included.

    open_clip's encoder always reads its whole context.
    """
    length = model.text.config.context_length if model.text.pad_id is None else text_length
    ids = torch.full((1, length), 2 if model.text.pad_id == 1 else 1, device=model.device)  # anything but padding
    with _plain_evaluation(model), FlopCounterMode(display=False) as counter:
        model.text.project(model.text.features(ids))
    return float(counter.get_total_flops())


def forward_flops(model: Clippy, resolution: int, kept_patches: int | None, text_length: int) -> ForwardFlops:
    """:func:`image_flops` and :func:`text_flops` of one pair."""
    return ForwardFlops(image_flops(model, resolution, kept_patches), text_flops(model, text_length))


def step_flops(forward: ForwardFlops, batch: int, *, image_learns: bool, text_learns: bool) -> float:
    """Model FLOPs of a training step on ``batch`` pairs: 3 forward passes for a tower that learns, 1 for a frozen one.

    What is computed twice (gradient caching, checkpointing) counts once, as in PaLM (arXiv 2204.02311, appendix B).
    """
    image = forward.image * (3 if image_learns else 1)
    text = forward.text * (3 if text_learns else 1)
    return batch * (image + text)


@contextmanager
def _plain_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation without gradients, compilation or fused kernels that the counter does not know."""
    training = [module for module in model.modules() if module.training]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module in training:
            module.training = True
