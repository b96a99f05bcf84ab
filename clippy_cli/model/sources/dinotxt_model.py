"""dino.txt (arXiv 2412.16334; DINOv3, arXiv 2508.10104) -> clippy's own model: the same parts under other names.

Its image tower is a frozen DINOv2 or DINOv3 trunk, two learned blocks and the pooling cls+avg; its text tower a causal
transformer that is read at the end-of-text token, with CLIP's tokenizer. Sizes are read from the tensors; heads are 64
wide, as in all released ones.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.model.assembly import Extent, assemble
from clippy_cli.model.build import read_weights
from clippy_cli.model.choices import Pooling
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.compat.timm import fitted_state, pretrained_model
from clippy_cli.model.config import ImageTowerConfig, InferenceConfig, ModelConfig, PreprocessConfig, TextTowerConfig

HEAD_WIDTH = 64
NATIVE = 224  # pixels that it was aligned at (``vision_model_train_img_size``)
RESOLUTION = 512  # short side of the public segmentation notebook
LOGIT_SCALE = 100.0  # of DINOv2's classification notebook; its files hold none
_SIZES = {384: "s", 768: "b", 1024: "l", 1280: "h", 1536: "g"}
_TIMM = {384: "small", 768: "base", 1024: "large"}
_RELEASED = {"dinov2": "vit_large_patch14_reg4_dinov2.lvd142m", "dinov3": "vit_large_patch16_dinov3.lvd1689m"}
_SHOWN = 8

# (theirs, ours), applied one after another in this order, in both directions.
_HEAD = (
    ("ln_final.", "norm."),
    ("linear_projection.", "mapping."),
    ("mlp.w1.", "mlp.fc1_g."),
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.w3.", "mlp.fc2."),
)
_TEXT = (
    ("backbone.blocks.", "encoder.transformer.resblocks."),
    ("backbone.", "encoder."),
    ("head.linear_projection.", "projection."),
    (".attention_norm.", ".ln_1."),
    (".attention.qkv.weight", ".attn.in_proj_weight"),
    (".attention.proj.", ".attn.out_proj."),
    (".ffn_norm.", ".ln_2."),
    (".feed_forward.fc1.", ".mlp.c_fc."),
    (".feed_forward.fc2.", ".mlp.c_proj."),
)
_KEYS = {"head": "ln_final.weight", "text": "backbone.token_embedding.weight", "trunk": "patch_embed.proj.weight"}
_PREFIXES = {
    "visual_model.head.": "head",
    "text_model.": "text",
    "visual_model.backbone.model.": "trunk",
    "visual_model.backbone.": "trunk",
}


@dataclass
class Parts:
    """The tensors of each part under their own names. ``head`` has ``blocks.``, whichever release it is of."""

    head: dict[str, Tensor] = field(default_factory=dict)
    text: dict[str, Tensor] = field(default_factory=dict)
    trunk: dict[str, Tensor] = field(default_factory=dict)
    logit_scale: Tensor | None = None
    generation: str = "dinov3"


def load_dinotxt(files: Sequence[Path]) -> Clippy:
    """The model whose parts are in ``files``, on the CPU; a trunk that is in none comes from timm, by the cache or hub.

    ClippyError: a file that holds no part, a part that is missing or there twice, tensors that are unknown, missing or
    of another shape.
    """
    parts = read_parts(files)
    where = ", ".join(map(str, files))
    config = _config(parts, where)
    trunk = parts.trunk or _released_trunk(config.image)
    weights = {**trunk, **{f"head.{name}": value for name, value in parts.head.items()}, **parts.text}
    model = assemble(config, None, where=where, extent=Extent.of(weights, "its files"))
    given = {f"image.trunk.{name}": value for name, value in fitted_state(model.image.trunk, dict(trunk)).items()}
    given |= {f"image.projection.{_renamed(name, _HEAD)}": value for name, value in parts.head.items()}
    given |= {f"text.{_renamed(name, _TEXT)}": value for name, value in parts.text.items()}
    scale = torch.tensor(math.log(LOGIT_SCALE)) if parts.logit_scale is None else parts.logit_scale.reshape(())
    given["log_logit_scale"] = scale
    own = model.state_dict()
    # Its attention has no bias of queries, keys and values; open_clip's has one, which is then zero.
    given |= {name: torch.zeros_like(own[name]) for name in own if name.endswith(".attn.in_proj_bias")}
    _check(where, given, own)
    with torch.no_grad():
        model.load_state_dict({"patch_mean": torch.zeros(config.patch_dim), **given})
    return model.eval()


def read_parts(files: Sequence[Path]) -> Parts:
    """Which part each file holds is read from its tensors; ClippyError as :func:`load_dinotxt`."""
    parts, came_from = Parts(), dict[str, Path]()
    for path in files:
        state = read_weights(path, "a file of dinotxt:", hint="Check the path.")
        found = dict[str, dict[str, Tensor]]()
        for part, name, value in _sorted_out({name.removeprefix("module."): state[name] for name in state}):
            found.setdefault(part, {})[name] = value.float()
        unknown = [*found.pop("unknown", {})]
        if unknown or not found:
            held = ", ".join(unknown[:_SHOWN]) or "nothing"
            raise ClippyError(
                f"{path} holds tensors of no part of a dino.txt: {held}.",
                "Pass the vision head, the text encoder, and the trunk's own weights.",
            )
        for part, tensors in found.items():
            if part in came_from:
                raise ClippyError(f"{path} and {came_from[part]} both hold the {part}.", "Pass one of them.")
            came_from[part] = path
            if part == "logit_scale":
                parts.logit_scale = tensors[part]
            else:
                setattr(parts, part, tensors)
    missing = [what for part, what in (("head", "vision head"), ("text", "text encoder")) if part not in came_from]
    if missing:
        raise ClippyError(
            f"{', '.join(map(str, files))} hold no {' and no '.join(missing)} of a dino.txt.",
            "Pass all files: dinotxt:HEAD.pth,TEXT.pth,TRUNK.pth",
        )
    if any(name.startswith("block_list.") for name in parts.head):
        parts.generation = "dinov2"
        parts.head = {name.replace("block_list.", "blocks.", 1): value for name, value in parts.head.items()}
    if parts.trunk:
        parts.generation = "dinov2" if "pos_embed" in parts.trunk else "dinov3"
    return parts


def _sorted_out(state: dict[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """(part, name in it, tensor); the part is "unknown" where nothing says which."""
    whole = next((part for part, key in _KEYS.items() if key in state), "unknown")  # a file of one part
    for name, value in state.items():
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is not None:
            yield _PREFIXES[prefix], name.removeprefix(prefix), value
        elif name == "logit_scale":
            yield name, name, value
        else:
            yield whole, name, value


def _config(parts: Parts, where: str) -> ModelConfig:
    """ClippyError where a tensor that says a size is missing."""
    head, text = parts.head, parts.text
    needed = {
        "vision head": (head, ("ln_final.weight",)),
        "text encoder": (
            text,
            (_KEYS["text"], "backbone.positional_embedding", "backbone.blocks.0.feed_forward.fc1.weight"),
        ),
    }
    for what, (state, names) in needed.items():
        if lacking := [name for name in names if name not in state]:
            raise ClippyError(f"The {what} in {where} lacks {', '.join(lacking)}.", "Pass the whole file.")
    width = len(head["ln_final.weight"])
    vocabulary, text_width = text[_KEYS["text"]].shape
    token_map, text_map = head.get("linear_projection.weight"), text.get("head.linear_projection.weight")
    token_dim = width if token_map is None else len(token_map)
    trunk, arguments, patch = _trunk(parts, width)
    return ModelConfig(
        name=f"dinotxt-{parts.generation}-vit{_SIZES.get(width, f'{width}-')}{patch}",
        embed_dim=2 * token_dim,
        image=ImageTowerConfig(
            trunk=trunk.partition(".")[0],
            trunk_args=arguments,
            pretrained_tag=None if parts.trunk else trunk,
            head_blocks=_count(head, "blocks."),
            projection="none" if token_map is None else "linear",
            pooling=Pooling.CLS_AVG,
        ),
        text=TextTowerConfig(
            kind="open_clip",
            encoder={
                "width": text_width,
                "heads": max(1, text_width // HEAD_WIDTH),
                "layers": _count(text, "backbone.blocks."),
                "vocab_size": vocabulary,
                "mlp_ratio": len(text["backbone.blocks.0.feed_forward.fc1.weight"]) / text_width,
            },
            context_length=len(text["backbone.positional_embedding"]),
            pooling="eot",
            projection="none" if text_map is None else "linear",
        ),
        preprocess=PreprocessConfig(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD, resolution=NATIVE),
        inference=InferenceConfig(resolution=RESOLUTION, templates="openai"),
    )


def _trunk(parts: Parts, width: int) -> tuple[str, dict[str, int | float | bool | str], int]:
    """timm's name, with its tag where the weights are timm's; arguments of its constructor; side of a patch."""
    state, old = parts.trunk, parts.generation == "dinov2"
    if not state:
        released = _RELEASED[parts.generation]
        if _TIMM.get(width) != "large":
            raise ClippyError(
                f"The vision head is {width} wide; without a file of its trunk, {released} is taken, which is 1024.",
                "Pass the trunk's file too: dinotxt:HEAD.pth,TEXT.pth,TRUNK.pth",
            )
        return released, {}, 14 if old else 16
    patch = state["patch_embed.proj.weight"].shape[-1]
    registers = next((len(state[n][0]) for n in ("register_tokens", "storage_tokens", "reg_token") if n in state), 0)
    trunk_width = len(state["patch_embed.proj.weight"])
    arguments: dict[str, int | float | bool | str] = {
        "embed_dim": trunk_width,
        "depth": _count(state, "blocks."),
        "num_heads": max(1, trunk_width // HEAD_WIDTH),
        "patch_size": patch,
    }
    size = _TIMM.get(trunk_width, "large")
    if not old:
        biased = any(name.endswith(("qkv.bias", "q_bias")) for name in state)
        return (
            f"vit_{size}_patch16_dinov3{'_qkvb' if biased else ''}",
            arguments | {"num_reg_tokens": registers},
            patch,
        )
    places = state["pos_embed"].shape[1]
    prefix = 0 if "reg_token" in state else 1  # timm's table of a trunk with registers has no place for the class token
    return (
        f"vit_{size}_patch14_reg4_dinov2",
        arguments | {"img_size": patch * math.isqrt(places - prefix), "reg_tokens": registers},
        patch,
    )


def _released_trunk(config: ImageTowerConfig) -> dict[str, Tensor]:
    tag = str(config.pretrained_tag)
    logging.getLogger(__name__).info("no file holds the trunk; taken from timm: %s", tag)
    try:
        return dict(pretrained_model(tag, num_classes=0).state_dict())
    except Exception as error:  # the hub's client raises many types: no network, no such name, a broken cache
        raise ClippyError(
            f"No file holds the trunk, and timm's {tag} cannot be had from the Hugging Face hub: {first_line(error)}",
            "Pass the trunk's file too: dinotxt:HEAD.pth,TEXT.pth,TRUNK.pth",
        ) from error


def _count(state: dict[str, Any], prefix: str) -> int:
    """Blocks under ``prefix``, by the largest number of one."""
    numbers = [int(found[1]) for name in state if (found := re.match(rf"{re.escape(prefix)}(\d+)\.", name))]
    return max(numbers, default=-1) + 1


def _renamed(name: str, pairs: Sequence[tuple[str, str]], *, back: bool = False) -> str:
    for theirs, ours in pairs:
        name = name.replace(*((ours, theirs) if back else (theirs, ours)))
    return name


def _named_as_given(name: str) -> str:
    """One of this package's names as the files have it."""
    for prefix, part, pairs in (("image.projection.", "vision head", _HEAD), ("text.", "text encoder", _TEXT)):
        if name.startswith(prefix):
            return f"{part}: {_renamed(name.removeprefix(prefix), pairs, back=True)}"
    return name.replace("image.trunk.", "trunk: ", 1)


def _check(where: str, given: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    groups = {
        "unknown": [_named_as_given(name) for name in given if name not in own],
        "missing": [_named_as_given(name) for name in own if name not in given and name != "patch_mean"],
        "of another shape": [
            f"{_named_as_given(name)} {tuple(value.shape)}, wanted {tuple(own[name].shape)}"
            for name, value in given.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    lines = [
        f"  {len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in groups.items()
        if names
    ]
    if lines:
        raise ClippyError(
            f"{where} do not make a dino.txt:\n" + "\n".join(lines), "Check that the files are of one release."
        )
