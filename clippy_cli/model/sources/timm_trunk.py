"""``timm:NAME`` and ``timm:NAME@FILE``: image-only trunks (DINO, DINOv2, MoCo, DeiT), whose patches can be grouped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import Preprocess
from clippy_cli.model.build import read_weights
from clippy_cli.model.dense import vit_tokens
from clippy_cli.model.hub import hub_session
from clippy_cli.model.sources.face import Dense, Source, first_line

# Where self-supervised releases keep the trunk: MoCo v3, then full DINO checkpoints, then anything wrapped in DDP.
_PREFIXES = ("module.base_encoder.", "base_encoder.", "module.backbone.", "backbone.", "module.")
_MOCO = ("module.base_encoder.", "base_encoder.")
_SELF_SUPERVISED = (*_MOCO, "module.backbone.", "backbone.")
_MOCO_HEADS = {384: 12}  # of MoCo v3's ViT-S, by its width; timm's has six, and no tensor's shape tells them apart
_NOT_TRUNK = ("head.", "head_dist.", "fc.", "mask_token")
_LONGEST = 600  # characters of a library's complaint that are passed on


class TimmTrunk(Source):
    """A trunk of timm with its own final norm; the joint space is the space of its features."""

    reads_texts = False

    def __init__(self, name: str, trunk: Any, dense: Dense) -> None:
        settings: dict[str, Any] = trunk.pretrained_cfg
        patch = int(trunk.feature_info[-1]["reduction"])
        preprocess = Preprocess(tuple(settings["mean"]), tuple(settings["std"]), patch, settings["input_size"][-1])
        super().__init__(dense.describe(name), trunk, preprocess, logit_scale=1.0)
        self._source, self._dense = name, dense

    def image_vectors(self, images: Tensor) -> Tensor:
        """The class token where there is one, else the mean of the patches."""
        tokens, patches = trunk_tokens(self.module, images, self._dense, self.preprocess)
        return patches.flatten(1, 2).mean(dim=1) if tokens is None else tokens[:, 0]

    def patch_vectors(self, images: Tensor) -> Tensor:
        return trunk_tokens(self.module, images, self._dense, self.preprocess)[1]

    def text_vectors(self, texts: list[str]) -> Tensor:
        raise no_texts(self._source)

    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        raise no_texts(self._source)


def trunk_tokens(trunk: Any, images: Tensor, dense: Dense, preprocess: Preprocess) -> tuple[Tensor | None, Tensor]:
    """(B,3,H,W) -> (B,P,F) prefix tokens (None without a class token) and (B,h,w,F) patches, after the final norm.

    Vision transformers take every mode of ``dense``, feature maps of other trunks the plain one only (ClippyError).
    """
    h, w = (side // preprocess.patch_size for side in images.shape[-2:])
    if isinstance(trunk, VisionTransformer):
        tokens = vit_tokens(trunk, images, dense.mode, dense.proxy_patches(images, preprocess))  # (B,P+N,F)
        if trunk.attn_pool is None:
            tokens = trunk.fc_norm(tokens)  # where the final norm comes after an average, it is the tokens' norm too
    elif dense.mode != "plain":
        raise ClippyError(
            f"--dense {dense.mode} rebuilds the last block of a vision transformer; this trunk is a "
            f"{type(trunk).__name__}.",
            "Leave --dense and --proxy out.",
        )
    else:
        tokens = trunk.forward_features(images)
        if tokens.ndim == 4:
            channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
            return None, tokens if channels_last else tokens.permute(0, 2, 3, 1)  # (B,F,h,w) -> (B,h,w,F)
    prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    patches = tokens[:, prefix:].reshape(len(tokens), h, w, -1)  # (B,N,F) -> (B,h,w,F)
    return (tokens[:, :prefix] if getattr(trunk, "cls_token", None) is not None else None), patches


def check(name: str) -> None:
    """ClippyError where timm knows no such model, or the file named after ``@`` is missing."""
    model, at, file = name.partition("@")
    if not timm.is_model(model.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{model.partition('.')[0].split('_')[0]}*")[:4])
        raise ClippyError(
            f"timm has no model {model!r}{f'; near it: {near}' if near else ''}.",
            "List them with: python -c \"import timm; print(timm.list_models('vit_*', pretrained=True))\"",
        )
    if at and not Path(file).expanduser().is_file():
        raise ClippyError(f"timm:{name} looks for the file {file}, which is not there.", "Check what follows the @.")


def no_texts(name: str) -> ClippyError:
    """Why an image-only trunk cannot take part where there are words."""
    return ClippyError(
        f"timm:{name} is an image-only trunk: it was trained without texts, so it cannot compare patches or images "
        "with labels.",
        "It can be grouped: clippy group, clippy evaluate --task group; or be the --proxy of an open_clip: model.",
    )


def load(name: str, device: torch.device, dense: Dense) -> TimmTrunk:
    """The trunk behind ``NAME`` or ``NAME@FILE``; ClippyError names weights that are missing or do not fit."""
    check(name)
    model, at, file = name.partition("@")
    trunk = _create(model, pretrained=not at)
    if at:
        _load_file(trunk, Path(file).expanduser(), model)
    return TimmTrunk(name, trunk.to(device), dense)


def _create(model: str, *, pretrained: bool) -> nn.Module:
    wanted = {"pretrained": pretrained, "num_classes": 0}
    try:
        with hub_session():
            try:
                trunk = timm.create_model(model, **wanted, dynamic_img_size=True)
            except TypeError:  # convolutional trunks take any size as they are
                trunk = timm.create_model(model, **wanted)
    except Exception as error:  # the hub's client raises many types: no network, no such name, a broken cache
        settings = timm.get_pretrained_cfg(model, allow_unregistered=False)
        where = getattr(settings, "hf_hub_id", None) or getattr(settings, "url", None) or "no place that timm names"
        raise ClippyError(
            f"timm:{model} looks for model.safetensors of {where} on the Hugging Face hub, which gave none: "
            f"{first_line(error)}",
            f"Download it elsewhere and pass the file: timm:{model}@/path/to/model.safetensors",
        ) from error
    created: nn.Module = trunk
    return created


def _load_file(trunk: Any, path: Path, model: str) -> None:
    """Load a timm, DINO or MoCo checkpoint; its heads and its second encoder are left out.

    What MoCo v3 and DINO release was trained on ImageNet's mean and deviation, whatever timm's weights of the
    architecture were; MoCo v3's ViT-S has twelve heads.
    """
    with torch.serialization.safe_globals([argparse.Namespace]):  # DINO keeps its command line in there
        state = read_weights(path, "the file after @", hint="Check what follows the @.")
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in state)), "")
    state = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    state = {key: value for key, value in state.items() if not key.startswith(_NOT_TRUNK)}
    try:
        fitted = checkpoint_filter_fn(state, trunk) if isinstance(trunk, VisionTransformer) else state
        result = trunk.load_state_dict(fitted, strict=False)
    except RuntimeError as error:
        complaint = " ".join(str(error).split())[:_LONGEST]
        raise ClippyError(f"{path} does not fit timm's {model}: {complaint}", "Name the model it is of.") from error
    if result.missing_keys or result.unexpected_keys:
        parts = [
            f"{verb} {len(keys)} tensors ({', '.join(keys[:5])})"
            for verb, keys in (("lacks", result.missing_keys), ("adds", result.unexpected_keys))
            if keys
        ]
        raise ClippyError(f"{path} does not fit timm's {model}: it {' and '.join(parts)}.", "Name the model it is of.")
    if prefix in _SELF_SUPERVISED:
        trunk.pretrained_cfg = {**trunk.pretrained_cfg, "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    if prefix in _MOCO and isinstance(trunk, VisionTransformer) and trunk.embed_dim in _MOCO_HEADS:
        heads = _MOCO_HEADS[trunk.embed_dim]
        for block in trunk.blocks:
            block.attn.num_heads, block.attn.head_dim = heads, trunk.embed_dim // heads
            block.attn.scale = block.attn.head_dim**-0.5
