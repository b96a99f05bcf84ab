"""Floating-point operations of a model and peak rates of devices, whose ratio is model FLOP utilisation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clippy_cli.model.clippy import Clippy

# The vendors' dense peaks in operations a second, by words of the device's name; the longer name comes first. bf16 and
# fp16 are tensor-core rates with fp32 accumulation, tf32 that of fp32 matrices on tensor cores, fp32 the plain rate.
PEAK_FLOPS: dict[str, dict[str, float]] = {
    "H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "tf32": 378e12, "fp32": 51e12},
    "H100 NVL": {"bf16": 835.5e12, "fp16": 835.5e12, "tf32": 417.5e12, "fp32": 60e12},
    "H100": {"bf16": 989.4e12, "fp16": 989.4e12, "tf32": 494.7e12, "fp32": 66.9e12},  # SXM
    "H200 NVL": {"bf16": 835.5e12, "fp16": 835.5e12, "tf32": 417.5e12, "fp32": 60e12},
    "H200": {"bf16": 989.4e12, "fp16": 989.4e12, "tf32": 494.7e12, "fp32": 66.9e12},  # SXM
    "A100": {"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp16": 362e12, "tf32": 183e12, "fp32": 91.6e12},
    "L4": {"bf16": 121e12, "fp16": 121e12, "tf32": 60e12, "fp32": 30.3e12},
    "RTX 4090": {"bf16": 165.2e12, "fp16": 165.2e12, "tf32": 82.6e12, "fp32": 82.6e12},
    "RTX 3090": {"bf16": 71e12, "fp16": 71e12, "tf32": 35.6e12, "fp32": 35.6e12},
    "V100-PCIE": {"fp16": 112e12, "fp32": 14e12},
    "V100": {"fp16": 125e12, "fp32": 15.7e12},
    "T4": {"fp16": 65e12, "fp32": 8.1e12},
}
_OTHER_CARDS = re.compile(r"\b(Laptop|Max-Q|MIG|Ti|D)\b")  # a listed name goes on, and the card is slower or a slice


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


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's dense datasheet rate at bf16, fp16, tf32 or fp32 (see ``PEAK_FLOPS``); None where none is known."""
    return named_peak(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def named_peak(name: str, precision: str) -> float | None:
    """As :func:`peak_flops`, by the device's name as CUDA gives it."""
    if _OTHER_CARDS.search(name):
        return None
    for card, rates in PEAK_FLOPS.items():
        if re.search(rf"\b{card}\b", name):
            return rates.get(precision)
    return None


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
