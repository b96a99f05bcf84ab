"""What every image tower has in common: a timm trunk whose tokens are carried into the joint space one by one."""

from __future__ import annotations

import copy
import reprlib
from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.model.base import patch_grid
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.config import ImageTowerConfig

_LIST = "List trunks with: python -c \"import timm; print(timm.list_models(['vit_*', '*efficientnet*']))\""


class ImageTower(nn.Module, ABC):
    """Trunk, optional blocks over its tokens, optional per-token projection; pooling comes after, outside.

    The projection is applied to each token *before* pooling: project-then-max is not max-then-project, and only
    the former leaves patch embeddings in the joint space (CLIPpy, section 3.2).

    Attributes:
        trunk: the timm module.
        patch_size: side in pixels of what one patch token stands for.
        num_prefix_tokens: class and register tokens before the patch tokens.
        feature_dim: width F of a trunk token.
        blocks: 1-based transformer blocks whose tokens are taken; empty where the trunk has none.
        can_drop_tokens: whether ``features`` takes ``keep``.
        takes_patches: whether ``patch_features`` gives the same from kept patches alone, at the kept patches' cost.
        has_batch_norm: whether, in training, the images of a batch see each other through batch normalisation.
    """

    config: ImageTowerConfig
    trunk: Any
    patch_size: int
    num_prefix_tokens: int
    feature_dim: int
    blocks: tuple[int, ...]
    can_drop_tokens: bool
    takes_patches: bool
    has_batch_norm: bool
    projection: nn.Module

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Patch grid (h, w) of an image of H x W pixels; ClippyError where a side is no multiple of the patch."""
        return patch_grid(height, width, self.patch_size)

    @property
    def positions(self) -> PositionResampling | None:
        """How the position table is resampled to other grids; None where there is none, or in the trunk's own way."""
        return None

    def view(self, config: ImageTowerConfig) -> Self:
        """The same weights under another configuration of the same architecture; this tower stays as it is."""
        other = copy.copy(self)
        other.config = config
        return other

    @abstractmethod
    def features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W) normalized -> (B,P+N,F) trunk tokens; (B,P+K,F) with ``keep`` (B,K), the patches to go on with."""

    def patch_features(self, patches: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B,K,3,p,p) normalized patches, at ``keep`` (B,K) of the image's ``grid`` (h,w) -> (B,P+K,F).

        Equal to ``features`` of the whole image with the same ``keep``; ClippyError unless ``takes_patches``.
        """
        raise ClippyError(
            f"The trunk {self.config.trunk} does not embed one patch without the others.",
            "Choose a plain vision transformer, or drop no tokens: --set train.drop_rate=0",
        )

    def require_dense(self, model: str) -> None:
        """ClippyError unless :meth:`dense_features` can be had; ``model`` is what its owner is called."""
        raise self._no_attention(model)

    def dense_features(self, images: Tensor, mode: DenseMode, proxy: Tensor | None) -> Tensor:
        """:meth:`features` of whole images with the last block's attention by ``mode``; ClippyError as above.

        ``proxy`` (B,h',w',F') are another model's patches of the same images, for proxyclip.
        """
        raise self._no_attention(self.config.trunk)

    def _no_attention(self, model: str) -> ClippyError:
        return ClippyError(
            f"{model} has a convolutional trunk, {self.config.trunk}: it has no attention to change.",
            "Leave --dense out.",
        )

    def block_features(self, features: Tensor, block: int) -> Tensor:
        """The part of (B,N,F) ``features`` that is of ``block``, one of ``blocks``: (B,N,F/len(blocks))."""
        return features.chunk(len(self.blocks), dim=-1)[self.blocks.index(block)]

    def project(self, features: Tensor) -> Tensor:
        """(B,P+N,F) -> (B,P+N,D), each token by itself unless ``config.head_blocks`` let them see each other."""
        projected: Tensor = self.projection(features)
        return projected


def create_trunk(config: ImageTowerConfig, **arguments: Any) -> Any:
    """timm's trunk with random weights, without head and pooling; ClippyError where timm cannot build it."""
    import timm

    arguments |= config.trunk_args
    if not timm.is_model(config.trunk.partition(".")[0]):  # "hf-hub:NAME" and "local-dir:FOLDER" would be read, too
        raise ClippyError(f"timm has no trunk {config.trunk!r}.", _LIST)
    try:
        return timm.create_model(config.trunk, pretrained=False, num_classes=0, global_pool="", **arguments)
    except ClippyError:
        raise
    except Exception as error:  # sizes that make no sense meet checks and divisions anywhere in timm
        raise ClippyError(
            f"timm cannot build the trunk {config.trunk!r} with {reprlib.repr(arguments)}: "
            f"{type(error).__name__}: {first_line(error)}",
            _LIST,
        ) from error


class BlocksProjection(nn.Module):
    """Transformer blocks over a trunk's tokens, a norm, then the map of each token, as in dino.txt (arXiv 2412.16334).

    The blocks are those of its public code: pre-norm, SwiGLU, no bias of queries, keys and values, layer scale from
    1e-5, no positions. Its stochastic depth of 0.3 in training is left out.
    """

    def __init__(self, config: ImageTowerConfig, feature_dim: int, heads: int, mapping: nn.Module) -> None:
        super().__init__()
        from clippy_cli.model.compat.timm import swiglu_block

        self.blocks = nn.ModuleList(swiglu_block(feature_dim, heads) for _ in range(config.head_blocks))
        self.norm = nn.LayerNorm(feature_dim)
        self.mapping = mapping

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,P+N,F) -> (B,P+N,D)."""
        for block in self.blocks:
            tokens = block(tokens)
        mapped: Tensor = self.mapping(self.norm(tokens))
        return mapped


def token_projection(config: ImageTowerConfig, feature_dim: int, embed_dim: int, heads: int = 1) -> nn.Module:
    """What takes trunk tokens (B,P+N,F) into the joint space: ``config.head_blocks``, then ``config.projection``.

    ``embed_dim`` is the width of a token there; ``heads`` are those of the blocks.
    """
    mapping = _token_map(config, feature_dim, embed_dim)
    return BlocksProjection(config, feature_dim, heads, mapping) if config.head_blocks else mapping


def _token_map(config: ImageTowerConfig, feature_dim: int, embed_dim: int) -> nn.Module:
    if config.projection == "none":
        if feature_dim != embed_dim:
            raise ClippyError(
                f"image.projection is none, but {config.trunk} gives {feature_dim} features; {embed_dim} are needed.",
                "Set image.projection: linear, or make the widths equal.",
            )
        return nn.Identity()
    if config.projection == "linear":
        return nn.Linear(feature_dim, embed_dim, bias=False)
    assert config.hidden_dim is not None  # ModelConfig checks it
    return nn.Sequential(nn.Linear(feature_dim, config.hidden_dim), nn.GELU(), nn.Linear(config.hidden_dim, embed_dim))
