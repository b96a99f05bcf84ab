"""Where a model runs."""

from __future__ import annotations

import torch

from clippy_cli.errors import ClippyError

DEVICES = ("auto", "cpu", "cuda", "mps")


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
