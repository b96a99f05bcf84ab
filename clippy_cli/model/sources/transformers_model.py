"""CLIP, SigLIP, ALIGN and GroupViT of transformers behind the package's one face, and how they are loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data import constants
from torch import Tensor
from transformers import AlignModel, AutoConfig, AutoTokenizer, CLIPModel, GroupViTModel, SiglipModel

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import GroupedImages, Preprocess, finite
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.compat import hub
from clippy_cli.model.compat import transformers as compat
from clippy_cli.model.config import check_sizes
from clippy_cli.model.pooling import normalized
from clippy_cli.model.precision import autocast
from clippy_cli.model.sources.face import ForeignModel, complaint
from clippy_cli.model.text_tower import has_vocabulary
from clippy_cli.model.weight_files import check_types, check_weight_file
from clippy_cli.regular_files import is_folder

OPENAI = (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)
IMAGENET = (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD)
HALF = (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD)
_ALIGN_CONTEXT = 64  # texts of ALIGN, whose encoder could take more


class TransformersModel(ForeignModel):
    """A model of transformers with its tokenizer; the kinds differ in how patches reach the joint space."""

    statistics = HALF
    own_positions: PositionResampling | None = PositionResampling.PLAIN

    def __init__(self, name: str, module: Any, tokenizer: Any, preprocess: Preprocess) -> None:
        super().__init__(name, module, preprocess, self.logit_scale_of(module))
        self._model: Any = module
        self._tokenizer = tokenizer
        self.positions = self.own_positions

    @staticmethod
    def logit_scale_of(module: Any) -> float:
        return math.exp(float(module.logit_scale.detach()))

    @staticmethod
    def stride(vision: Any) -> int:
        """Side in pixels of what one patch stands for."""
        return int(vision.patch_size)

    def image_vectors(self, images: Tensor) -> Tensor:
        return compat.pooled(self._model.get_image_features(pixel_values=self.native_square(images)))

    def text_vectors(self, texts: list[str]) -> Tensor:
        try:
            return compat.pooled(self._model.get_text_features(**self.tokenize(texts)))
        except (IndexError, ValueError) as error:  # a token without an embedding, or none to pad with
            raise ClippyError(
                f"The tokenizer of {self.name} does not fit its text tower: {complaint(error)}",
                "Copy the whole repository again.",
            ) from error

    def tokenize(self, texts: list[str], *, padding: str = "longest") -> dict[str, Tensor]:
        length = self.longest_text()
        tokens = self._tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        return {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask") if name in tokens}

    def text_lengths(self, texts: Sequence[str]) -> list[int]:
        ids = self._tokenizer(list(texts), truncation=True, max_length=self.longest_text())["input_ids"]
        return [len(text) for text in ids]

    def longest_text(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    @property
    def rule(self) -> PositionResampling:
        """How the position table is resampled, by models that have one."""
        return self.positions or PositionResampling.PLAIN

    def grid(self, images: Tensor) -> tuple[int, int]:
        h, w = (side // self.preprocess.patch_size for side in images.shape[-2:])
        return h, w


class TransformersClip(TransformersModel):
    """CLIP (arXiv 2103.00020): patches take the class token's final norm and projection."""

    statistics = OPENAI

    def patch_vectors(self, images: Tensor) -> Tensor:
        vision = self._model.vision_model
        tokens = compat.encode(vision, compat.embed(vision, images, self.rule))  # (B,1+N,F)
        patches: Tensor = self._model.visual_projection(vision.post_layernorm(tokens[:, 1:]))  # (B,N,D)
        return patches.view(len(images), *self.grid(images), -1)  # (B,N,D) -> (B,h,w,D)


class Siglip(TransformersModel):
    """SigLIP (arXiv 2303.15343) and the fixed-resolution SigLIP 2: each patch goes through the attention pooling alone.

    Pooling over one token is its value path, so no patch sees another one there.
    """

    def patch_vectors(self, images: Tensor) -> Tensor:
        vision = self._model.vision_model
        tokens = compat.encode(vision, compat.embed(vision, images, self.rule))  # (B,N,F)
        alone = vision.head(tokens.flatten(0, 1)[:, None])  # (B*N,1,F) -> (B*N,D)
        patches: Tensor = alone.view(len(images), *self.grid(images), -1)  # (B*N,D) -> (B,h,w,D)
        return patches

    def tokenize(self, texts: list[str], *, padding: str = "max_length") -> dict[str, Tensor]:
        """Trained on lower-case texts, always padded to the full length, with no mask over the padding."""
        return {"input_ids": super().tokenize([text.lower() for text in texts], padding=padding)["input_ids"]}

    def text_lengths(self, texts: Sequence[str]) -> list[int]:
        return [self.longest_text()] * len(texts)


class Align(TransformersModel):
    """ALIGN (arXiv 2102.05918): its EfficientNet's last feature map is the joint space, pooled by a plain mean."""

    statistics = HALF
    own_positions = None

    @staticmethod
    def logit_scale_of(module: Any) -> float:
        return 1 / float(module.temperature.detach())

    @staticmethod
    def stride(vision: Any) -> int:
        return 2 * int(math.prod(vision.strides))  # of the stem, of the stages

    def image_vectors(self, images: Tensor) -> Tensor:
        return self.patch_vectors(images).mean(dim=(1, 2))

    def patch_vectors(self, images: Tensor) -> Tensor:
        features: Tensor = self._model.vision_model(pixel_values=images).last_hidden_state  # (B,D,h,w)
        return features.permute(0, 2, 3, 1)

    def longest_text(self) -> int:
        return min(super().longest_text(), _ALIGN_CONTEXT)


class GroupViT(TransformersModel):
    """GroupViT (arXiv 2202.11094): a patch is the sum of the projected groups, by its soft assignment to them.

    Groups are scaled to unit norm before, so that a patch times a text is the model's segmentation logit, up to one
    positive factor for each patch, which the unit norm of patches brings in. Patches of one group come out alike.
    """

    statistics = IMAGENET

    def patch_vectors(self, images: Tensor) -> Tensor:
        groups, assignment = compat.group_vit_patches(self._model, images, self.rule)  # (B,G,F), (B,N,G)
        return (assignment @ self._projected(groups)).view(len(images), *self.grid(images), -1)  # (B,N,D) -> (B,h,w,D)

    @torch.no_grad()
    def embed_groups(self, images: Tensor) -> GroupedImages:
        """Groups of the last stage, projected; an image is the projection of their mean, as in its classification."""
        with autocast(self.precision, images.device):
            groups, assignment = compat.group_vit_patches(self._model, images, self.rule)  # (B,G,F), (B,N,G)
        groups, assignment = groups.float(), assignment.float()
        pooled = normalized(self._model.visual_projection(groups.mean(dim=1)))
        planes = assignment.mT.reshape(len(images), -1, *self.grid(images))  # (B,G,h,w)
        return GroupedImages(finite(self._projected(groups), self.name), planes, finite(pooled, self.name))

    def _projected(self, groups: Tensor) -> Tensor:
        """(B,G,F) -> (B,G,D), unit norm; one by one, since the projection normalizes over what it is given."""
        return normalized(self._model.visual_projection(groups.flatten(0, 1))).view(*groups.shape[:2], -1)


_ADAPTER = "adapter_config.json"
logger = logging.getLogger(__name__)
_KINDS: dict[str, tuple[type[TransformersModel], Any]] = {
    "clip": (TransformersClip, CLIPModel),
    "siglip": (Siglip, SiglipModel),
    "align": (Align, AlignModel),
    "groupvit": (GroupViT, GroupViTModel),
}


def load_transformers(name: str, device: torch.device) -> TransformersModel:
    """The model behind a Hub name or a folder with config.json, model.safetensors and tokenizer files.

    Code inside the folder is never run. ClippyError names the file that was looked for, the tensors that are missing,
    or why this kind of model has no fixed patch grid.
    """
    folder = Path(name).expanduser()
    where = str(folder) if is_folder(folder) else name
    config = _read(
        name,
        "config.json",
        lambda local: AutoConfig.from_pretrained(where, trust_remote_code=False, local_files_only=local),
    )
    if config.model_type == "siglip2":
        raise ClippyError(
            f"hf:{name} is a NaFlex SigLIP 2, which takes packed patches of any aspect, not images.",
            "Take one of fixed resolution, such as hf:google/siglip2-base-patch16-224.",
        )
    if config.model_type not in _KINDS:
        raise ClippyError(
            f"hf:{name} is a {config.model_type} model; clippy reads {', '.join(_KINDS)} from transformers.",
            "Image-only trunks come from timm:, other CLIPs from open_clip:.",
        )
    kind, library = _KINDS[config.model_type]
    for section in ("text_config", "vision_config"):
        try:
            check_sizes(section, getattr(config, section).to_dict())
        except ValueError as error:
            raise ClippyError(f"The config.json of hf:{name} makes no sense: {error}", "Copy it again.") from error
    if is_folder(folder):
        _check_files(name, folder)
    module, report = _read(
        name,
        "model.safetensors",
        lambda local: library.from_pretrained(
            where, weights_only=True, output_loading_info=True, local_files_only=local
        ),
    )
    unused = sorted(report["unexpected_keys"])
    if unused:
        logger.warning(
            "hf:%s: %d tensors of its weights have no place in the model and are not used (%s)",
            name,
            len(unused),
            ", ".join(map(str, unused[:5])),
        )
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ClippyError(
            f"The weights of hf:{name} lack {len(lacking)} tensors ({', '.join(map(str, lacking[:5]))}).",
            "Copy the whole repository again.",
        )
    tokenizer = _read(
        name,
        "tokenizer.json",
        lambda local: AutoTokenizer.from_pretrained(where, trust_remote_code=False, local_files_only=local),
    )
    _check_tokenizer(name, tokenizer)
    try:
        preprocess = _preprocess(where, kind, config.vision_config)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ClippyError(
            f"The preprocessor_config.json of hf:{name} does not say how pixels are scaled: {complaint(error)}",
            "Copy the whole repository again.",
        ) from error
    shown = folder.resolve().name if is_folder(folder) else name
    return kind(shown, module.to(device), tokenizer, preprocess)


def _check_files(name: str, folder: Path) -> None:
    """ClippyError for weight files that are damaged or quantized; a warning for an adapter, which is not applied."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".txt", ".model") and not path.is_dir():
            check_weight_file(path)
            check_types(path)
    if (folder / _ADAPTER).is_file():
        logger.warning(
            "hf:%s holds an adapter (%s), which is not applied: merge it into the weights first", name, _ADAPTER
        )


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    """ClippyError for one without a vocabulary: transformers makes it where files are missing."""
    if not has_vocabulary(lambda texts: tokenizer(texts)["input_ids"]):
        raise ClippyError(
            f"hf:{name} holds no vocabulary: its tokenizer cannot tell dog from cat. Looked for tokenizer.json, or the "
            "vocab.json and merges.txt, spiece.model or vocab.txt that it is made of.",
            "Download the whole repository elsewhere and pass the folder: --model hf:/path/to/folder",
        )


def _read(name: str, file: str, action: Callable[[bool], Any]) -> Any:
    """What ``action(local_files_only)`` reads, ``file`` of the repository or folder ``name``."""
    try:
        with compat.quiet_session(str(Path(name).expanduser())) as local:
            return action(local)
    except Exception as error:  # transformers and the hub's client raise many types: no network, no such name
        raise ClippyError(
            f"hf:{name} looks for {file} in {name}, which gave none that can be used: {complaint(error)}",
            "Download the whole repository elsewhere and pass the folder: --model hf:/path/to/folder",
        ) from error


def _preprocess(where: str, kind: type[TransformersModel], vision: Any) -> Preprocess:
    """Statistics and side of ``preprocessor_config.json`` (or ``processor_config.json``); the kind's own without."""
    found = hub.read_json(where, ("preprocessor_config.json", "processor_config.json"))
    if not found:
        logger.warning(
            "hf:%s has no preprocessor_config.json: pixels are scaled as its released models want them", where
        )
    settings = found.get("image_processor", found)
    settings = settings if isinstance(settings, dict) else {}
    mean, std = kind.statistics
    if "rescale_factor" in settings or "image_mean" in settings:
        # x in [0, 255] -> x * factor - offset -> (... - mean) / std, as one mean and deviation of x / 255
        factor = 255 * float(settings.get("rescale_factor") or 1 / 255) if settings.get("do_rescale", True) else 255.0
        offset = 1.0 if settings.get("rescale_offset") else 0.0
        shifts, scales = (0.0,) * 3, (1.0,) * 3
        if settings.get("do_normalize", True):
            shifts, scales = settings.get("image_mean", mean), settings.get("image_std", std)
        mean = tuple((offset + shift) / factor for shift in shifts)
        std = tuple(scale / factor for scale in scales)
    if not len(mean) == len(std) == 3 or not all(0 < scale < math.inf for scale in std):
        raise ValueError(f"mean {list(mean)}, deviation {list(std)} in units of full brightness")
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    size = crop or settings.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or vision.image_size
    if kind is not Align:
        side = vision.image_size  # the position table's
    return Preprocess(mean, std, kind.stride(vision), int(side))
