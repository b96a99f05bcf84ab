"""torch.compile for towers, block by block."""

from __future__ import annotations

from torch import nn

from clippy_cli.model.clippy import Clippy
from clippy_cli.model.compat.torch import allow_recompilations

SHAPES = 64  # chunks, resolutions, drop rates, passes with and without gradient; beyond, a block would run uncompiled


def compile_towers(model: Clippy) -> None:
    """Compile the repeated blocks of both towers in place, each shape once; names of parameters stay as they are.

    Blocks of a kind share their code, so that compiling takes the time of one. Shapes are taken as fixed: there are few
    of them, since batches are whole, kept tokens a fixed number, and texts are padded to their context.
    """
    allow_recompilations(SHAPES)
    for tower in (model.image.trunk, model.text.encoder):
        for block in repeated_blocks(tower):
            block.compile(dynamic=False)


def repeated_blocks(tower: nn.Module) -> list[nn.Module]:
    """The members of the tower's longest list of layers of one class; the tower itself where it has none."""
    lists = [
        list(module.children())
        for module in tower.modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len({type(child) for child in module.children()}) == 1
    ]
    longest = max(lists, key=len, default=[])
    return longest if len(longest) > 1 else [tower]
