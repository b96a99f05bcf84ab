"""Where a model runs, and how fast that is at most."""

from __future__ import annotations

import re

import torch

from clippy_cli.errors import ClippyError

DEVICES = ("auto", "cpu", "cuda", "mps")
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


def resolve_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; ``cuda:1`` names one of several. ClippyError where it is absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise ClippyError(f"Unknown device {name!r}.", f"Choose one of {', '.join(DEVICES)}.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ClippyError(f"Cannot read {name!r} as a device.", "Write cpu, mps, cuda or cuda:0.") from error
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ClippyError(f"Device {name!r} was asked for; this machine has {count} CUDA devices.", "Use auto.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ClippyError("Device 'mps' was asked for; this PyTorch has no MPS device here.", "Use --device auto.")
    return device


def device_name(device: torch.device) -> str:
    """``cpu``, ``mps``, or a card's name as CUDA gives it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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
