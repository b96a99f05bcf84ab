"""Image-only trunks of timm behind the package's one face, and how released weight files are loaded into them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import Preprocess
from clippy_cli.model.build import read_weights
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.compat import timm as compat
from clippy_cli.model.compat.timm_eva import Eva
from clippy_cli.model.dense.dense import Dense
from clippy_cli.model.dense.timm_vit import vit_tokens
from clippy_cli.model.sources.face import ForeignModel, complaint
from clippy_cli.model.sources.timm import no_texts

# Where self-supervised releases keep the trunk: MoCo v3, then full DINO checkpoints, then anything wrapped in DDP.
_PREFIXES = ("module.base_encoder.", "base_encoder.", "module.backbone.", "backbone.", "module.")
_MOCO = ("module.base_encoder.", "base_encoder.")
_DINO = ("module.backbone.", "backbone.")
_SELF_SUPERVISED = (*_MOCO, *_DINO)
_MOCO_HEADS = {384: 12}  # of MoCo v3's ViT-S, by its width; timm's has six, and no tensor's shape tells them apart
_HEADS = ("head.", "head_dist.", "fc.")
_MASK = "mask_token"  # by which timm knows a file of DINOv2; no trunk has it
_LONGEST = 600  # characters of a library's complaint that are passed on


class TimmTrunk(ForeignModel):
    """A trunk of timm with its own final norm; the joint space is the space of its features."""

    reads_texts = False

    def __init__(self, name: str, trunk: Any, positions: PositionResampling = PositionResampling.TIMM) -> None:
        settings: dict[str, Any] = trunk.pretrained_cfg
        patch = int(trunk.feature_info[-1]["reduction"])
        preprocess = Preprocess(tuple(settings["mean"]), tuple(settings["std"]), patch, settings["input_size"][-1])
        super().__init__(name, trunk, preprocess, logit_scale=1.0)
        self.positions = positions if compat.can_resample(trunk) else None

    def with_dense(self, dense: Dense) -> Self:
        """A view with patches by ``dense``; whether the trunk takes it is said when patches are asked for."""
        return self.view(dense)

    def image_vectors(self, images: Tensor) -> Tensor:
        """The class token where there is one, else the mean of the patches."""
        tokens, patches = trunk_tokens(self.module, images, self.dense, self.preprocess, self.positions)
        return patches.flatten(1, 2).mean(dim=1) if tokens is None else tokens[:, 0]

    def patch_vectors(self, images: Tensor) -> Tensor:
        return trunk_tokens(self.module, images, self.dense, self.preprocess, self.positions)[1]

    def text_vectors(self, texts: list[str]) -> Tensor:
        raise no_texts(self._name)

    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        raise no_texts(self._name)


def trunk_tokens(
    trunk: Any, images: Tensor, dense: Dense, preprocess: Preprocess, positions: PositionResampling | None = None
) -> tuple[Tensor | None, Tensor]:
    """(B,3,H,W) -> (B,P,F) prefix tokens (None without a class token) and (B,h,w,F) patches, after the final norm.

    Vision transformers take every mode of ``dense``, feature maps of other trunks the plain one only (ClippyError).
    """
    h, w = (side // preprocess.patch_size for side in images.shape[-2:])
    if isinstance(trunk, compat.VisionTransformer | Eva):
        proxy = dense.proxy_patches(images, preprocess)
        rule = positions or PositionResampling.TIMM
        tokens = vit_tokens(trunk, images, dense.mode, proxy, positions=rule)  # (B,P+N,F)
        tokens = compat.tokens_of(trunk, tokens)  # a final norm that comes after an average is the tokens' norm too
    elif dense.mode is not DenseMode.PLAIN:
        raise ClippyError(
            f"--dense {dense.mode} rebuilds the last block of a vision transformer; this trunk is a "
            f"{type(trunk).__name__}.",
            "Leave --dense and --proxy out.",
        )
    else:
        tokens = _features(trunk, images)
        if tokens.ndim == 4:
            channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
            return None, tokens if channels_last else tokens.permute(0, 2, 3, 1)  # (B,F,h,w) -> (B,h,w,F)
    prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    patches = tokens[:, prefix:].reshape(len(tokens), h, w, -1)  # (B,N,F) -> (B,h,w,F)
    return (tokens[:, :prefix] if getattr(trunk, "cls_token", None) is not None else None), patches


def _features(trunk: Any, images: Tensor) -> Tensor:
    """What the trunk makes of images before its pooling; ClippyError where it takes another size only."""
    try:
        features: Tensor = trunk.forward_features(images)
    except AssertionError as error:
        size = "x".join(map(str, images.shape[-2:]))
        raise ClippyError(
            f"This trunk ({type(trunk).__name__}) takes no images of {size} pixels: {complaint(error)}",
            "Pass --resolution and --window of its own size, or choose a vision transformer.",
        ) from error
    return features


def load_timm(name: str, device: torch.device) -> TimmTrunk:
    """The trunk behind ``NAME`` or ``NAME@FILE``; ClippyError names weights that are missing or do not fit."""
    model, at, file = name.partition("@")
    trunk = _create(model, pretrained=not at)
    positions = released_positions(model)
    if at and _load_file(trunk, Path(file).expanduser(), model) in _DINO:
        positions = PositionResampling.DINO
    return TimmTrunk(name, trunk.to(device), positions)


def released_positions(model: str) -> PositionResampling:
    """How the public code of a model, named as timm does, resamples its position table.

    DINO (``vision_transformer.py``) and DINOv2 (``hub/backbones.py``: offset 0.1, no antialiasing) have a rule of their
    own; DINOv2's models with registers antialias and resize to the size, as timm does.
    """
    architecture, _, tag = model.partition(".")
    without_registers = architecture.endswith("_dinov2") and "_reg" not in architecture
    return PositionResampling.DINO if tag == "dino" or without_registers else PositionResampling.TIMM


def _create(model: str, *, pretrained: bool) -> nn.Module:
    create = compat.pretrained_model if pretrained else timm.create_model
    try:
        try:
            trunk = create(model, num_classes=0, dynamic_img_size=True)
        except TypeError:  # convolutional trunks take any size as they are
            trunk = create(model, num_classes=0)
    except Exception as error:  # the hub's client raises many types: no network, no such name, a broken cache
        settings = timm.get_pretrained_cfg(model, allow_unregistered=False)
        where = getattr(settings, "hf_hub_id", None) or getattr(settings, "url", None) or "no place that timm names"
        raise ClippyError(
            f"timm:{model} looks for model.safetensors of {where} on the Hugging Face hub, which gave none: "
            f"{complaint(error)}",
            f"Download it elsewhere and pass the file: timm:{model}@/path/to/model.safetensors",
        ) from error
    created: nn.Module = trunk
    return created


def _load_file(trunk: Any, path: Path, model: str) -> str:
    """Load a timm, DINO, DINOv2 or MoCo checkpoint without heads and second encoder; the prefix of its tensors.

    What MoCo v3 and DINO release was trained on ImageNet's mean and deviation, whatever timm's weights of the
    architecture were; MoCo v3's ViT-S has twelve heads.
    """
    with torch.serialization.safe_globals([argparse.Namespace]):  # DINO keeps its command line in there
        state = read_weights(path, "the file after @", hint="Check what follows the @.")
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in state)), "")
    state = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    state = {key: value for key, value in state.items() if not key.startswith(_HEADS)}
    try:
        fitted = compat.fitted_state(trunk, state)
        result = trunk.load_state_dict({key: fitted[key] for key in fitted if key != _MASK}, strict=False)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:_LONGEST]
        raise ClippyError(f"{path} does not fit timm's {model}: {said}", "Name the model it is of.") from error
    if result.missing_keys or result.unexpected_keys:
        parts = [
            f"{verb} {len(keys)} tensors ({', '.join(keys[:5])})"
            for verb, keys in (("lacks", result.missing_keys), ("adds", result.unexpected_keys))
            if keys
        ]
        raise ClippyError(f"{path} does not fit timm's {model}: it {' and '.join(parts)}.", "Name the model it is of.")
    if prefix in _SELF_SUPERVISED:
        trunk.pretrained_cfg = {**trunk.pretrained_cfg, "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    if prefix in _MOCO and isinstance(trunk, compat.VisionTransformer) and trunk.embed_dim in _MOCO_HEADS:
        compat.set_heads(trunk, _MOCO_HEADS[trunk.embed_dim])
    return prefix
