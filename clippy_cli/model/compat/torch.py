"""torch: weights that are not drawn, parts of modules seen and replaced, how often a block may be compiled again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_INITIALIZERS = frozenset(
    getattr(torch.nn.init, f"{name}_")
    for name in (
        "normal", "uniform", "trunc_normal", "orthogonal",
        "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform",
    )
) | {torch.Tensor.normal_, torch.Tensor.uniform_}  # fmt: skip


class _Unfilled(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _INITIALIZERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def unfilled_weights() -> AbstractContextManager[Any]:
    """While open, layers are built without drawing weights: what is in memory stays, for a checkpoint to overwrite.

    Constants, buffers and the few tensors that a library draws as a whole are set as ever.
    """
    return _Unfilled()


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """What ``module``, some part of another, puts out while this is open, one tensor a call."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def with_child(module: ModuleT, name: str, child: nn.Module) -> ModuleT:
    """A copy of ``module`` with another child of that name, sharing all weights; ``module`` stays as it is."""
    other = copy.copy(module)
    other._modules = {**module._modules, name: child}  # copy.copy shares the dictionary
    return other


def allow_recompilations(count: int) -> None:
    """Let ``torch.compile`` compile a block for at least that many shapes, in this process, before it gives up."""
    torch._dynamo.config.recompile_limit = max(count, torch._dynamo.config.recompile_limit)
