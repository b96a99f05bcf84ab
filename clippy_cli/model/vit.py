"""The plain vision transformer (arXiv 2010.11929), so that loading a model does not wait for timm.

The arithmetic, the attributes and the names of weights are those of timm's ``VisionTransformer``, which still draws the
weights of new models and reads those of others; importing it takes about as long as importing torch.

Shapes: see ``model/base.py``; M heads of width d, T = P+N tokens.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.dense.block import OpenBlock
from clippy_cli.model.positions import resample_positions

_NAME = re.compile(r"vit_(tiny|small|base|large)_patch(8|14|16|32)_(\d+)(\.\w+)?")
_EPSILON = 1e-6


class Shape(NamedTuple):
    """Sizes of a vision transformer: ``image`` and ``patch`` are sides in pixels."""

    image: int
    patch: int
    width: int
    depth: int
    heads: int


_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_SETTABLE = {"img_size": "image", "patch_size": "patch", "embed_dim": "width", "depth": "depth", "num_heads": "heads"}


def plain_shape(name: str, arguments: Mapping[str, Any]) -> Shape | None:
    """The sizes behind timm's name and arguments; None where that is anything but a plain vision transformer.

    >>> plain_shape("vit_tiny_patch16_224", {})
    Shape(image=224, patch=16, width=192, depth=12, heads=3)
    """
    found = _NAME.fullmatch(name)
    given = {_SETTABLE.get(key, ""): value for key, value in arguments.items()}
    if found is None or "" in given or not all(type(value) is int and value > 0 for value in given.values()):
        return None
    width, depth, heads = _SIZES[found[1]]
    shape = Shape(int(found[3]), int(found[2]), width, depth, heads)._replace(**given)
    return shape if shape.width % shape.heads == 0 and shape.image >= shape.patch else None


class PlainViT(nn.Module):
    """Patch embedding, class token, position table, pre-norm blocks and the final norm; no head, images of any size.

    It is to be given the weights of a checkpoint.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbedding(shape)
        self.embed_dim, self.num_prefix_tokens, self.no_embed_class, self.dynamic_img_size = shape.width, 1, False, True
        h, w = self.patch_embed.grid_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + h * w, shape.width))
        self.reg_token = None
        self.pos_drop = self.norm_pre = nn.Identity()
        self.blocks = nn.ModuleList(_Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=_EPSILON)


class _PatchEmbedding(nn.Module):
    """(B,3,H,W) -> (B,h,w,width)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.img_size = shape.image, shape.image
        self.patch_size = shape.patch, shape.patch
        self.grid_size = shape.image // shape.patch, shape.image // shape.patch
        self.proj = nn.Conv2d(3, shape.width, shape.patch, shape.patch)
        self.norm = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images).permute(0, 2, 3, 1)  # (B,width,h,w) -> (B,h,w,width)
        return patches


class _Attention(nn.Module):
    """Self-attention of (B,T,width) tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, width // heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = self.k_norm = self.norm = nn.Identity()

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B,M,T,d)."""
        projected = self.qkv(tokens).reshape(*tokens.shape[:2], 3, self.num_heads, self.head_dim)  # (B,T,3,M,d)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(*self.split(tokens))  # (B,M,T,d)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(tokens.shape))
        return out


class _FeedForward(nn.Module):
    """Two layers with a GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(tokens)))
        return out


class _Block(nn.Module):
    """A pre-norm block of (B,T,width) tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = _FeedForward(width)
        self.ls1 = self.ls2 = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


# What a tower asks about its trunk: the same functions as in ``compat/timm.py``.


def library_of(trunk: Any) -> ModuleType:
    """The module that knows a vision transformer's trunk: this one, or timm's side of it."""
    if isinstance(trunk, PlainViT):
        return sys.modules[__name__]
    from clippy_cli.model.compat import timm

    return timm


def can_resample(trunk: PlainViT) -> bool:
    """Whether there is a position table that :func:`embed` resamples by any rule."""
    return True


def can_embed_kept(trunk: PlainViT) -> bool:
    """Whether :func:`embed_kept` repeats what the trunk does."""
    return True


def head_count(trunk: Any) -> int:
    """Heads of the last block's attention."""
    return int(trunk.blocks[-1].attn.num_heads)


def embed(trunk: Any, images: Tensor, positions: PositionResampling = PositionResampling.TIMM) -> Tensor:
    """(B,3,H,W) -> (B,P+N,width): patches and prefix tokens with positions, before the blocks."""
    tokens: Tensor = library_of(trunk).place(trunk, trunk.patch_embed(images), positions)
    return tokens


def embed_masked(
    trunk: Any, images: Tensor, masked: Tensor, mask_token: Tensor, positions: PositionResampling
) -> Tensor:
    """:func:`embed` with ``mask_token`` (width,) in the place of the ``masked`` (B,h,w,1) patches."""
    patches = trunk.patch_embed(images)  # (B,h,w,width)
    hidden = torch.where(masked, mask_token.to(patches.dtype), patches)
    tokens: Tensor = library_of(trunk).place(trunk, hidden, positions)
    return tokens


def embed_kept(
    trunk: Any, patches: Tensor, keep: Tensor, grid: tuple[int, int], positions: PositionResampling
) -> Tensor:
    """:func:`embed` for the patches at ``keep`` (B,K) of the grid alone: (B,K,3,p,p) -> (B,P+K,width)."""
    conv = trunk.patch_embed.proj
    kept = F.linear(patches.flatten(2), conv.weight.flatten(1), conv.bias)  # (B,K,3*p*p) -> (B,K,width)
    return join(trunk, trunk.patch_embed.norm(kept), grid, positions, keep)


def join(
    trunk: Any,
    patches: Tensor,
    grid: tuple[int, int],
    positions: PositionResampling,
    keep: Tensor | None = None,
) -> Tensor:
    """(B,K,width) embedded patches, those at ``keep`` or all, -> (B,P+K,width) with prefix tokens and positions."""
    prefix = [
        token.expand(patches.shape[0], -1, -1) for token in (trunk.cls_token, trunk.reg_token) if token is not None
    ]
    if trunk.pos_embed is None:
        return torch.cat([*prefix, patches], dim=1)
    covered = 0 if trunk.no_embed_class else trunk.num_prefix_tokens  # prefix tokens that have a position
    table = resample_positions(trunk.pos_embed, grid, trunk.patch_embed.grid_size, covered, positions)
    if covered:
        prefix = [torch.cat(prefix, dim=1) + table[:, :covered]]  # (B,P,width)
    places = table[:, covered:] if keep is None else F.embedding(keep, table[0, covered:])
    tokens: Tensor = trunk.pos_drop(torch.cat([*prefix, patches + places], dim=1))
    return tokens


def require_openable(trunk: PlainViT, number: int) -> None:
    """Every block can be taken apart."""


def open_block(block: Any, tokens: Tensor) -> OpenBlock:
    """A block that ``require_openable`` lets pass, taken apart for (B,T,width) tokens."""
    attention = block.attn
    projected = attention.qkv(block.norm1(tokens))  # (B,T,3*M*d)
    queries, keys, values = projected.view(*tokens.shape[:2], 3, attention.num_heads, -1).permute(
        2, 0, 3, 1, 4
    )  # (B,M,T,d)

    def mix(heads: Tensor) -> Tensor:
        mixed = heads.transpose(1, 2).flatten(2)  # (B,M,T,d) -> (B,T,M*d)
        if hasattr(attention, "norm"):  # older timm has none
            mixed = attention.norm(mixed)
        added: Tensor = block.ls1(attention.proj(mixed))
        return added

    return OpenBlock(
        attention.q_norm(queries),
        attention.k_norm(keys),
        values,
        join=mix,
        feed_forward=lambda mixed: block.ls2(block.mlp(block.norm2(mixed))),
    )


def place(trunk: PlainViT, patches: Tensor, positions: PositionResampling) -> Tensor:
    """(B,h,w,width) embedded patches -> (B,P+N,width) with prefix tokens and positions."""
    h, w = patches.shape[1:3]
    return join(trunk, patches.flatten(1, 2), (h, w), positions)
