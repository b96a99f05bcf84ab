"""A timm vision transformer in the names and shapes of open_clip's own."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from clippy_cli.model.choices import Pooling
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.positions import resample_positions
from clippy_cli.model.vit_tower import VitTower

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias|gamma)")
_IN_BLOCK = {
    "norm1": "ln_1.",
    "norm2": "ln_2.",
    "attn.qkv": "attn.in_proj_",
    "attn.proj": "attn.out_proj.",
    "mlp.fc1": "mlp.c_fc.",
    "mlp.fc2": "mlp.c_proj.",
    "ls1": "ls_1.",
    "ls2": "ls_2.",
}
_OUTSIDE = {"patch_embed.proj.weight": "conv1.weight"} | {
    f"{ours}.{kind}": f"{theirs}.{kind}"
    for ours, theirs in (("norm_pre", "ln_pre"), ("norm", "ln_post"))
    for kind in ("weight", "bias")
}
_FOLDED = {"cls_token", "pos_embed", "patch_embed.proj.bias"}  # become class_embedding and positional_embedding


def vit_obstacles(tower: VitTower) -> list[str]:
    """What of the tower open_clip's vision transformer cannot say; empty where it can say all."""
    trunk, config = tower.trunk, tower.config
    found = []
    if config.pooling not in (Pooling.CLS, Pooling.AVG):
        found.append(f"{config.pooling} pooling: open_clip pools the class token or the mean")
    if config.head_blocks:
        found.append("blocks of the head (image.head_blocks): open_clip has none after the trunk")
    if config.pool_prefix_tokens:
        found.append("a mean that takes in the class token (image.pool_prefix_tokens)")
    if config.projection == "mlp":
        found.append("an mlp projection of each token: open_clip's is linear")
    if tower.blocks != (len(trunk.blocks),):
        found.append(f"features of blocks {list(tower.blocks)}: open_clip takes the last block's alone")
    if trunk.cls_token is None or tower.num_prefix_tokens != 1:
        found.append(f"{tower.num_prefix_tokens} prefix tokens: open_clip has one, the class token")
    if trunk.pos_embed is None:
        found.append("a transformer without a position table")
    activation = trunk.blocks[0].mlp.act
    if not (type(activation).__name__ == "GELU" and getattr(activation, "approximate", "none") == "none"):
        found.append(f"the activation {activation}: only the exact GELU")
    strangers = [name for name in trunk.state_dict() if _their_name(name) is None and name not in _FOLDED]
    if strangers:
        found.append(f"{len(strangers)} weights that it does not know, such as {strangers[0]}")
    return found


def vit_config(model: Clippy, tower: VitTower) -> dict[str, Any]:
    """open_clip's ``vision_cfg`` of the tower at the model's native resolution."""
    trunk = tower.trunk
    block = trunk.blocks[0]
    width = int(trunk.embed_dim)
    return {
        "image_size": model.preprocess.resolution,
        "patch_size": tower.patch_size,
        "width": width,
        "layers": len(trunk.blocks),
        "head_width": width // int(block.attn.num_heads),
        "mlp_ratio": block.mlp.fc1.out_features / width,
        "ls_init_value": None if isinstance(block.ls1, nn.Identity) else 1.0,
        "no_ln_pre": isinstance(trunk.norm_pre, nn.Identity),
        "pool_type": "tok" if tower.config.pooling == Pooling.CLS else "avg",
        "norm_kwargs": {"eps": float(trunk.norm.eps)},
    }


def vit_state(model: Clippy, tower: VitTower) -> dict[str, Tensor]:
    """The tower's weights under open_clip's names, for a tower without obstacles.

    The position table is resampled to the native grid, and the patch embedding's bias, which open_clip has not, is
    added to each patch's position.
    """
    trunk = tower.trunk
    weights: dict[str, Tensor] = trunk.state_dict()
    state = {theirs: value for name, value in weights.items() if (theirs := _their_name(name)) is not None}
    grid = tower.grid_size(model.preprocess.resolution, model.preprocess.resolution)
    covered = 0 if trunk.no_embed_class else 1
    table = resample_positions(weights["pos_embed"], grid, trunk.patch_embed.grid_size, covered)[0]  # (covered+N,F)
    patches = table[covered:] + weights.get("patch_embed.proj.bias", 0.0)
    first = table[:covered] if covered else torch.zeros_like(table[:1])
    state["class_embedding"] = weights["cls_token"].flatten()  # (1,1,F) -> (F)
    state["positional_embedding"] = torch.cat([first, patches])
    return state


def _their_name(name: str) -> str | None:
    block = _BLOCK.fullmatch(name)
    if block is None:
        return _OUTSIDE.get(name)
    number, part, kind = block.groups()
    return f"transformer.resblocks.{number}.{_IN_BLOCK[part]}{kind}" if part in _IN_BLOCK else None
