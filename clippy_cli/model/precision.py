"""In which precision an image tower computes, and whether it is compiled. Texts are embedded in float32 in any case.

Under bf16 products of matrices are taken in bfloat16 by torch's autocast; weights, patch embeddings and scores stay in
float32. docs/models.md says what it and dynamic int8, which is not offered, gave on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.choices import AUTO, Precision


@runtime_checkable
class TakesPrecision(Protocol):
    """A model whose image tower can compute in either precision."""

    precision: Precision

    def with_precision(self, precision: Precision) -> VisionLanguageModel:
        """A view that shares the weights."""
        ...


@runtime_checkable
class Compilable(Protocol):
    """A model whose image tower torch can compile."""

    compiled: bool

    def compile_image_tower(self) -> None:
        """Compile it in place, once for images of all sizes and batches."""
        ...


def precision_of(model: VisionLanguageModel) -> Precision:
    """What its image tower computes in: float32 where a model knows no choice."""
    return model.precision if isinstance(model, TakesPrecision) else Precision.FP32


def is_compiled(model: VisionLanguageModel) -> bool:
    """Whether its image tower is compiled."""
    return isinstance(model, Compilable) and model.compiled


def with_precision(model: VisionLanguageModel, wanted: str) -> VisionLanguageModel:
    """``model`` with its image tower in that precision; ClippyError for another name, or where it cannot be had.

    ``auto`` is float32 on every device: bfloat16 is slower than it on CPUs without instructions for it, and what it
    does to figures on others is not measured.
    """
    check_precision(wanted)
    precision = Precision.FP32 if wanted == AUTO else Precision(wanted)
    if precision is precision_of(model):
        return model
    if not isinstance(model, TakesPrecision):
        raise ClippyError(f"{model.name} computes in float32 only.", "Leave --precision out.")
    if model.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ClippyError(f"{torch.cuda.get_device_name(model.device)} has no bfloat16.", "Leave --precision out.")
    return model.with_precision(precision)


def check_precision(wanted: str) -> None:
    """ClippyError where there is no precision of that name."""
    if wanted != AUTO and wanted not in list(Precision):
        raise ClippyError(f"--precision cannot be {wanted!r}.", f"Choose among {', '.join((AUTO, *Precision))}.")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Products of matrices in that precision."""
    return nullcontext() if precision is Precision.FP32 else torch.autocast(device.type, dtype=torch.bfloat16)


def in_precision(precision: Precision, device: torch.device, compute: Callable[[], Tensor]) -> Tensor:
    """What ``compute`` gives in that precision, as float32 where that is another one."""
    if precision is Precision.FP32:
        return compute()
    with autocast(precision, device):
        return compute().float()


def compile_model(model: VisionLanguageModel) -> None:
    """Compile the image tower in place; ClippyError where torch cannot compile here, or this model's cannot be."""
    if not isinstance(model, Compilable):
        raise ClippyError(
            f"{model.name} cannot be compiled: only models of clippy's own class can.", "Leave --compile out."
        )
    if model.device.type == "cpu":
        _require_compiler()
    model.compile_image_tower()


def _require_compiler() -> None:
    """ClippyError where there is no C++ compiler, which torch needs to compile for a CPU."""
    from clippy_cli.model.compat.torch import compiler_complaint

    complaint = compiler_complaint()
    if complaint is not None:
        raise ClippyError(
            f"--compile on a CPU needs a C++ compiler, and none was found: {complaint}",
            "Install g++ or clang++ (CXX names another), or leave --compile out.",
        )
