"""``open_clip:ARCH/TAG``, ``open_clip:ARCH/FILE`` and ``open_clip:FOLDER``: contrastive models of open_clip."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import VisionTransformer
from timm.layers import Format
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import Preprocess
from clippy_cli.model.dense import clip_patches
from clippy_cli.model.hub import hub_session
from clippy_cli.model.sources.face import Dense, Source, first_line
from clippy_cli.model.sources.timm_trunk import trunk_tokens

CONFIG = "open_clip_config.json"
_LONGEST = 600  # characters of a library's complaint that are passed on
_RESNET_STRIDE = 32


@dataclass(frozen=True)
class _Wanted:
    """What a source's text asks for; one of ``tag``, ``file`` and ``folder`` says where the weights are."""

    architecture: str
    tag: str | None = None
    file: Path | None = None
    folder: Path | None = None


class OpenClipModel(Source):
    """A contrastive model of open_clip; images are squashed to its native square where one vector is wanted.

    Patches: native vision transformers through ``clip_patches``. Towers of timm: the tokens of the trunk, each pooled
    as if it were the only one. ResNets: value and output projection of their attention pooling at every place, as
    MaskCLIP (arXiv 2112.01071, section 3.2) takes them.
    """

    def __init__(self, name: str, module: Any, tokenize: Callable[[list[str]], Tensor], dense: Dense) -> None:
        visual = module.visual
        side = visual.image_size[0] if isinstance(visual.image_size, tuple | list) else visual.image_size
        preprocess = Preprocess(tuple(visual.image_mean), tuple(visual.image_std), _stride(visual), int(side))
        super().__init__(dense.describe(name), module, preprocess, float(module.logit_scale.detach().exp()))
        self._visual, self._tokenize, self._dense = visual, tokenize, dense
        if isinstance(visual, TimmModel) and isinstance(visual.trunk, TimmVisionTransformer):
            _take_any_size(visual.trunk)

    def image_vectors(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.module.encode_image(self.native_square(images))  # type: ignore[operator]
        return vectors

    def text_vectors(self, texts: list[str]) -> Tensor:
        vectors: Tensor = self.module.encode_text(self._tokenize(texts).to(self.device))  # type: ignore[operator]
        return vectors

    def patch_vectors(self, images: Tensor) -> Tensor:
        visual, mode = self._visual, self._dense.mode
        if isinstance(visual, VisionTransformer):
            patches: Tensor = clip_patches(visual, images, mode, self._dense.proxy_patches(images, self.preprocess))
            return patches
        if isinstance(visual, TimmModel):
            return _timm_patches(visual, images, self._dense, self.preprocess)
        if isinstance(visual, ModifiedResNet) and mode in ("plain", "maskclip"):
            return _resnet_patches(visual, images)
        raise ClippyError(
            f"{self.name} has an image tower ({type(visual).__name__}) that gives no patches by --dense {mode}.",
            "Take a model with a vision transformer, such as open_clip:ViT-B-16/openai.",
        )


def _timm_patches(visual: Any, images: Tensor, dense: Dense, preprocess: Preprocess) -> Tensor:
    """(B,3,H,W) -> (B,h,w,D)."""
    trunk = visual.trunk
    patches = trunk_tokens(trunk, images, dense, preprocess)[1]  # (B,h,w,F)
    batch, h, w, _ = patches.shape
    alone = patches.flatten(0, 2)  # (B*h*w,F)
    try:
        if isinstance(trunk, TimmVisionTransformer):
            pooled = alone if trunk.attn_pool is None else trunk.attn_pool(alone[:, None])
            pooled = trunk.head(pooled)
        else:
            pooled = trunk.forward_head(alone[:, :, None, None])  # one place at a time: (B*h*w,F,1,1)
        vectors: Tensor = visual.head(pooled)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ClippyError(
            f"The pooling of this image tower ({type(trunk).__name__}) cannot be applied to single patches: "
            f"{first_line(error)}",
            "It can classify whole images; for patches take one with a vision transformer.",
        ) from error
    return vectors.view(batch, h, w, -1)  # (B*h*w,D) -> (B,h,w,D)


def _resnet_patches(visual: Any, images: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,h,w,D)."""
    features = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        features = layer(features)
    places = features.permute(0, 2, 3, 1)  # (B,F,h,w) -> (B,h,w,F)
    vectors: Tensor = visual.attnpool.c_proj(visual.attnpool.v_proj(places))
    return vectors


def _stride(visual: Any) -> int:
    if isinstance(visual, TimmModel):
        return int(visual.trunk.feature_info[-1]["reduction"])
    if isinstance(visual, ModifiedResNet):
        return _RESNET_STRIDE
    size = visual.patch_size
    return int(size[0] if isinstance(size, tuple | list) else size)


def _take_any_size(trunk: Any) -> None:
    """What timm's ``dynamic_img_size`` sets, which open_clip does not pass on: positions are resampled."""
    trunk.dynamic_img_size = True
    trunk.patch_embed.strict_img_size = False
    trunk.patch_embed.flatten, trunk.patch_embed.output_fmt = False, Format.NHWC


def check(name: str) -> None:
    """ClippyError where open_clip knows no such architecture or tag and there is no such file or folder."""
    _wanted(name)


def _wanted(name: str) -> _Wanted:
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return _Wanted(folder.name, folder=folder)
    architecture, _, weights = name.partition("/")
    if architecture not in open_clip.list_models():
        near = [known for known in open_clip.list_models() if known.lower().startswith(architecture.lower()[:5])][:6]
        raise ClippyError(
            f"open_clip has no architecture {architecture!r}, and {name} is no folder with {CONFIG}"
            f"{'; near it: ' + ', '.join(near) if near else ''}.",
            "Write open_clip:ARCH/TAG; clippy models --all lists every pair.",
        )
    tags = list_pretrained_tags_by_model(architecture)
    if weights and get_pretrained_cfg(architecture, weights):
        return _Wanted(architecture, tag=weights)
    for file in (Path(weights).expanduser(), Path("/") / weights):  # ARCH/data/a.pt may well mean /data/a.pt
        if weights and file.is_file():
            return _Wanted(architecture, file=file)
    raise ClippyError(
        f"open_clip:{name} names no weights: {weights!r} is neither a file nor a tag of {architecture}"
        f" ({', '.join(tags) or 'it has none'}).",
        f"Write open_clip:{architecture}/{tags[0] if tags else '/path/to/weights.pt'}.",
    )


def load(name: str, device: torch.device, dense: Dense) -> OpenClipModel:
    """The model behind ``ARCH/TAG``, ``ARCH/FILE`` or ``FOLDER``; ClippyError names the file that was looked for."""
    wanted = _wanted(name)
    settings: dict[str, Any] = {}
    if wanted.tag is not None:
        settings = get_pretrained_cfg(wanted.architecture, wanted.tag)
        weights: Path | None = _downloaded(wanted, settings)
    elif wanted.file is not None:
        settings = _statistics(wanted.architecture)
        weights = wanted.file
    else:
        weights = wanted.folder
    statistics = {key: settings[key] for key in ("mean", "std") if key in settings}
    entry = wanted.architecture if wanted.folder is None else f"local-dir:{wanted.folder}"
    try:
        with hub_session(), _quiet():
            model = open_clip.create_model(
                entry,
                pretrained=None if wanted.folder is not None else str(weights),
                force_quick_gelu=bool(settings.get("quick_gelu")),  # OpenAI's weights are wrong without, silently
                force_preprocess_cfg=statistics,
                require_pretrained=True,
                weights_only=True,
            )
    except Exception as error:  # open_clip, torch and the hub's client raise many types
        complaint = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch goes on to advise loading it all the same
            complaint = first_line(error)
        raise ClippyError(
            f"{weights} cannot be loaded as open_clip's {wanted.architecture}: {complaint}",
            "Check that the architecture fits the weights.",
        ) from error
    tokenize = _tokenizer(wanted, entry)
    first, second = tokenize(["dog", "cat"])
    if torch.equal(first, second):  # transformers makes a tokenizer without vocabulary where its files are missing
        raise ClippyError(
            f"The tokenizer of open_clip:{name} holds no vocabulary: it cannot tell dog from cat.",
            "Put tokenizer.json and tokenizer_config.json of the model's repository beside its weights.",
        )
    return OpenClipModel(name, model.to(device), tokenize, dense)


def _downloaded(wanted: _Wanted, settings: dict[str, Any]) -> Path:
    try:
        with hub_session(), _quiet():
            return Path(download_pretrained(settings))
    except Exception as error:  # as above
        faithful = f"{wanted.architecture}-quickgelu"  # a file does not say which activation it was trained with
        local = faithful if settings.get("quick_gelu") and faithful in open_clip.list_models() else wanted.architecture
        raise ClippyError(
            f"open_clip:{wanted.architecture}/{wanted.tag} looks for {looked_for(settings)}, which cannot be had: "
            f"{first_line(error)}",
            f"Download it elsewhere and pass the file: open_clip:{local}/path/to/weights",
        ) from error


def looked_for(settings: dict[str, Any]) -> str:
    """The Hub's repository and file, or the address, of a pretrained entry."""
    repository, _, file = str(settings.get("hf_hub", "")).rpartition("/")
    if repository:
        return f"{repository}/{file or 'open_clip_model.safetensors'}"
    return str(settings.get("url") or settings.get("file"))


def _statistics(architecture: str) -> dict[str, Any]:
    """Mean and standard deviation on which all published weights of an architecture agree; open_clip's otherwise."""
    known = [get_pretrained_cfg(architecture, tag) for tag in list_pretrained_tags_by_model(architecture)]
    pairs = {(tuple(entry["mean"]), tuple(entry["std"])) for entry in known if entry.get("mean") and entry.get("std")}
    if len(pairs) != 1:
        return {}
    mean, std = pairs.pop()
    return {"mean": mean, "std": std}


def _tokenizer(wanted: _Wanted, entry: str) -> Callable[[list[str]], Tensor]:
    """open_clip's own, or that of Hugging Face files: beside a local checkpoint where they are there."""
    settings = (open_clip.get_model_config(entry) or {}).get("text_cfg", {})
    beside = None if wanted.file is None else wanted.file.parent
    try:
        with hub_session(), _quiet():
            if settings.get("hf_tokenizer_name") and beside is not None and (beside / "tokenizer.json").is_file():
                return HFTokenizer(  # type: ignore[no-any-return]
                    str(beside),
                    context_length=settings.get("context_length", 77),
                    tokenizer_mode=settings.get("tokenizer_mode"),
                    **settings.get("tokenizer_kwargs", {}),
                )
            return open_clip.get_tokenizer(entry)  # type: ignore[no-any-return]
    except Exception as error:  # as above
        raise ClippyError(
            f"{wanted.architecture} looks for tokenizer.json of {settings.get('hf_tokenizer_name', entry)}, which "
            f"cannot be had: {first_line(error)}",
            "Put that repository's tokenizer files beside a local checkpoint: "
            f"open_clip:{wanted.architecture}/path/to/weights",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger, which writes to the terminal unless it has a handler."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
