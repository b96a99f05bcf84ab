"""Position tables away from their own grid, by the rules that public code uses.

The same weights give slightly different patches under each, so a model's configuration names its rule, and results do.
On the table's own grid every rule returns the table as it is.

- ``timm``: bicubic to the new size with antialiasing; timm's ``resample_abs_pos_embed``, open_clip's
  ``resize_pos_embed``, DINOv2's models with registers. It differs from ``plain`` on larger grids too, since torch's
  antialiased cubic has the coefficient -0.5 instead of -0.75.
- ``plain``: bicubic to the new size without antialiasing; MaskCLIP, CLIP-DINOiser, transformers.
- ``dino``: as ``plain``, but by the scale factor (n + 0.1) / m for n patches from m, which also says where the new
  patches lie: sample i is read at (i + 0.5) m / (n + 0.1) - 0.5, a little to the left of ``plain``'s. DINO
  (``interpolate_pos_encoding``), DINOv2 without registers, the CLIPpy authors' ``infer_model.py``, SCLIP, NACLIP,
  ProxyCLIP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.model.choices import PositionResampling

_OFFSET = 0.1  # patches that DINO adds to each side before it divides
_CUBIC = -0.75  # torch's and ONNX's bicubic coefficient


def resample_positions(
    table: Tensor,
    grid: tuple[int, int],
    old: tuple[int, int] | None,
    num_prefix: int,
    rule: PositionResampling = PositionResampling.TIMM,
) -> Tensor:
    """(1,P+n,F) positions on the ``old`` grid, None for a square -> (1,P+N,F) on ``grid`` by ``rule``.

    The first ``num_prefix`` rows, of class and register tokens, stay as they are.
    """
    side = round((table.shape[1] - num_prefix) ** 0.5)
    m_h, m_w = old or (side, side)
    free = any(isinstance(side, torch.SymInt) for side in grid)  # an export whose images may have any size
    if not free and (m_h, m_w) == tuple(grid):
        return table
    prefix, patches = table[:, :num_prefix], table[:, num_prefix:].float()
    maps = patches.reshape(1, m_h, m_w, -1).permute(0, 3, 1, 2)  # (1,n,F) -> (1,F,m_h,m_w)
    if rule is not PositionResampling.DINO:
        antialias = rule is PositionResampling.TIMM
        maps = F.interpolate(maps, size=tuple(grid), mode="bicubic", antialias=antialias)
    elif free:
        maps = _by_products(maps, grid)
    else:
        factors = (grid[0] + _OFFSET) / m_h, (grid[1] + _OFFSET) / m_w
        maps = F.interpolate(maps, scale_factor=factors, mode="bicubic", align_corners=False)
    rows = maps.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1).to(table.dtype)  # (1,F,h,w) -> (1,N,F)
    return torch.cat([prefix, rows], dim=1)


def _by_products(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1,F,m_h,m_w) -> (1,F,h,w) by the rule ``dino``, for a ``grid`` of unknown size, which no scale factor takes."""
    native = torch.ones((), dtype=torch.bool)
    for size, old in zip(grid, maps.shape[-2:], strict=True):
        native = native & (torch.ones(size).sum() == old)  # counted by a tensor: a number would fix the exported size
    offset = torch.where(native, 0.0, _OFFSET)  # on the table's own grid the weights are those of the identity
    down, across = (_bicubic(size, old, offset) for size, old in zip(grid, maps.shape[-2:], strict=True))
    return down @ maps @ across.mT


def _bicubic(size: int, old: int, offset: Tensor) -> Tensor:
    """(size,old) weights of the old positions in each new one; those beyond the edge go to the edge's."""
    centers = (torch.arange(size) + 0.5) * (old / (torch.ones(size).sum() + offset)) - 0.5  # (size,)
    first = centers.floor()
    reach = torch.arange(-1, 3)  # the four neighbors
    distance = (centers - first)[:, None].sub(reach).abs()  # (size,4)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
    sources = (first[:, None] + reach).clamp(0, old - 1)  # (size,4)
    weights = torch.where(distance <= 1, near, far)
    return (weights[..., None] * (sources[..., None] == torch.arange(old))).sum(dim=1)  # (size,4,old) -> (size,old)
