"""torch: modules whose weights are counted or not drawn, parts of them seen and replaced, how often blocks compile."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
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


_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.randn, torch.rand})


class _Sized(TorchFunctionMode):
    """Asks before a tensor is made."""

    def __init__(self, allow: Callable[[int], None], *, fill: bool) -> None:
        super().__init__()
        self._allow, self._fill = allow, fill

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._fill and func in _INITIALIZERS:
            return args[0] if args else (kwargs or {})["tensor"]
        if func in _FACTORIES:
            self._allow(_elements(args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _elements(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Of what a factory is called for: sizes one by one, or as one sequence; 0 where it will refuse them itself."""
    sizes = kwargs.get("size", args)
    if len(sizes) and isinstance(sizes[0], Sequence):
        sizes = sizes[0]
    return math.prod(size for size in sizes if isinstance(size, int) and size >= 0)


def sized_weights(allow: Callable[[int], None], *, fill: bool) -> AbstractContextManager[Any]:
    """While open, ``allow`` is given the number of elements of each tensor that is made, before there is memory for it.

    Without ``fill`` layers are built without drawing weights: what is in memory stays, for a checkpoint to overwrite.
    Constants, buffers and the few tensors that a library draws as a whole are set as ever.
    """
    return _Sized(allow, fill=fill)


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


def repeated_blocks(tower: nn.Module) -> list[nn.Module]:
    """The members of the tower's longest list of layers of one class; the tower itself where it has none."""
    lists = [
        list(module.children())
        for module in tower.modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len({type(child) for child in module.children()}) == 1
    ]
    longest = max(lists, key=len, default=[])
    return longest if len(longest) > 1 else [tower]


def compiler_complaint() -> str | None:
    """Why inductor finds no C++ compiler; None where it finds one."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        return str(error).splitlines()[0]
    return None
