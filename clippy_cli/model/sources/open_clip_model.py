"""Contrastive models of open_clip behind the package's one face, and how they are found and loaded."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import open_clip
import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.assembly import NEW, Budget, Extent
from clippy_cli.model.base import Preprocess, patch_grid
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.compat import open_clip as compat
from clippy_cli.model.compat import timm as timm_compat
from clippy_cli.model.compat import timm_eva
from clippy_cli.model.compat.torch import sized_weights
from clippy_cli.model.dense.block import Layout, blocks_read, run_block
from clippy_cli.model.dense.dense import Dense, check_mode
from clippy_cli.model.sources.face import ForeignModel, complaint
from clippy_cli.model.sources.open_clip_config import CONFIG, check_config
from clippy_cli.model.sources.timm_trunk import trunk_tokens
from clippy_cli.model.text_tower import has_vocabulary
from clippy_cli.model.weight_files import CHECKSUMS_FILE, check_types, check_weight_file, verify_checksums
from clippy_cli.regular_files import is_file

_QUICK = "-quickgelu"
_READ = {".safetensors", ".bin", ".pt", ".pth", ".json", ".txt"}
logger = logging.getLogger(__name__)
_LONGEST = 600  # characters of a library's complaint that are passed on


@dataclass(frozen=True)
class Wanted:
    """What a source's text asks for; one of ``tag``, ``file`` and ``folder`` says where the weights are."""

    architecture: str
    tag: str | None = None
    file: Path | None = None
    folder: Path | None = None


class OpenClipModel(ForeignModel):
    """A contrastive model of open_clip; images are squashed to its native square where one vector is wanted.

    Patches: native vision transformers through ``clip_patches``. Towers of timm: the tokens of the trunk, each pooled
    as if it were the only one. ResNets: value and output projection of their attention pooling at every place, as
    MaskCLIP (arXiv 2112.01071, section 3.2) takes them.
    """

    def __init__(self, name: str, module: Any, tokenize: Callable[[list[str]], Tensor]) -> None:
        visual = module.visual
        side = visual.image_size[0] if isinstance(visual.image_size, tuple | list) else visual.image_size
        preprocess = Preprocess(tuple(visual.image_mean), tuple(visual.image_std), compat.stride(visual), int(side))
        super().__init__(name, module, preprocess, float(module.logit_scale.detach().exp()))
        self.visual, self._tokenize = visual, tokenize
        trunk = getattr(visual, "trunk", None)
        if isinstance(trunk, timm_compat.VisionTransformer):
            timm_compat.take_any_size(trunk)
        elif isinstance(trunk, timm_eva.Eva):
            timm_eva.take_any_size(trunk)
        if isinstance(visual, compat.VisionTransformer) or timm_compat.can_resample(trunk):
            self.positions = PositionResampling.TIMM  # open_clip's own, where it loads weights of another size

    def with_dense(self, dense: Dense) -> Self:
        """A view with patches by ``dense``; which tower takes which mode is said when patches are asked for."""
        return self.view(dense)

    def image_vectors(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.module.encode_image(self.native_square(images))  # type: ignore[operator]
        return vectors

    def text_vectors(self, texts: list[str]) -> Tensor:
        vectors: Tensor = self.module.encode_text(self._tokenize(texts).to(self.device))  # type: ignore[operator]
        return vectors

    def patch_vectors(self, images: Tensor) -> Tensor:
        visual, mode = self.visual, self.dense.mode
        if isinstance(visual, compat.VisionTransformer):
            proxy = self.dense.proxy_patches(images, self.preprocess)
            return clip_patches(visual, images, mode, proxy, self.positions)
        if isinstance(visual, compat.TimmModel):
            return _timm_patches(visual, images, self.dense, self.preprocess, self.positions)
        if isinstance(visual, compat.ModifiedResNet) and mode in (DenseMode.PLAIN, DenseMode.MASKCLIP):
            return compat.resnet_patches(visual, images)
        raise ClippyError(
            f"{self.name} has an image tower ({type(visual).__name__}) that gives no patches by --dense {mode}.",
            "Take a model with a vision transformer, such as open_clip:ViT-B-16/openai.",
        )


def clip_patches(
    visual: Any,
    images: Tensor,
    mode: str,
    proxy: Tensor | None = None,
    positions: PositionResampling | None = None,
) -> Tensor:
    """Patches of open_clip's own vision transformer: (B,3,H,W) normalized pixels -> (B,h,w,D) in the joint space.

    They are not normalized, and tokens are never dropped.

    ``mode`` says how the last block attends (see ``dense/block.py``); its final norm and projection then meet every
    patch. Sides are multiples of the patch; the position table is resampled to the grid by ``positions``, timm's
    rule by default.
    ``proxy`` (B,h',w',F') is for proxyclip. ClippyError: wrong mode, proxy or size, or a tower that cannot be opened.
    """
    checked = check_mode(mode, proxy)
    compat.require_openable(visual)
    grid = patch_grid(images.shape[-2], images.shape[-1], visual.patch_size)
    blocks = visual.transformer.resblocks
    read = blocks_read(checked, len(blocks))
    earlier: list[tuple[Tensor, Tensor]] = []
    layout = Layout(grid, num_prefix=1, proxy=proxy, earlier=earlier)
    tokens = compat.embed(visual, images, grid, positions or PositionResampling.TIMM)
    for number, block in enumerate(blocks, start=1):
        parts = compat.open_block(block, tokens)  # all: nn.MultiheadAttention would hold (B,M,T,T) scores on a CPU
        if number in read:
            earlier.append((parts.queries, parts.keys))
        tokens = run_block(tokens, parts, layout, checked if number == len(blocks) else DenseMode.PLAIN)
    return compat.joint_patches(visual, tokens).view(len(images), *grid, -1)  # (B,N,D) -> (B,h,w,D)


def _timm_patches(
    visual: Any, images: Tensor, dense: Dense, preprocess: Preprocess, positions: PositionResampling | None
) -> Tensor:
    """(B,3,H,W) -> (B,h,w,D)."""
    trunk = visual.trunk
    patches = trunk_tokens(trunk, images, dense, preprocess, positions)[1]  # (B,h,w,F)
    batch, h, w, _ = patches.shape
    alone = patches.flatten(0, 2)  # (B*h*w,F)
    try:
        vectors: Tensor = visual.head(timm_compat.pooled_alone(trunk, alone))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ClippyError(
            f"The pooling of this image tower ({type(trunk).__name__}) cannot be applied to single patches: "
            f"{complaint(error)}",
            "It can classify whole images; for patches take one with a vision transformer.",
        ) from error
    return vectors.view(batch, h, w, -1)  # (B*h*w,D) -> (B,h,w,D)


def wanted_weights(name: str) -> Wanted:
    """ClippyError where open_clip knows no such architecture or tag and there is no such file or folder."""
    folder = Path(name).expanduser()
    if is_file(folder / CONFIG):
        return Wanted(folder.name, folder=folder)
    architecture, _, weights = name.partition("/")
    if architecture not in open_clip.list_models():
        near = [known for known in open_clip.list_models() if known.lower().startswith(architecture.lower()[:5])][:6]
        raise ClippyError(
            f"open_clip has no architecture {architecture!r}, and {name} is not a directory with {CONFIG}"
            f"{'; near it: ' + ', '.join(near) if near else ''}.",
            "Write open_clip:ARCH/TAG; clippy models --all lists every pair.",
        )
    tags = compat.pretrained_tags(architecture)
    if weights and compat.pretrained_entry(architecture, weights):
        return Wanted(architecture, tag=weights)
    for file in (Path(weights).expanduser(), Path("/") / weights):  # ARCH/data/a.pt may well mean /data/a.pt
        if weights and is_file(file):
            return Wanted(architecture, file=file)
    raise ClippyError(
        f"open_clip:{name} names no weights: {weights!r} is neither a file nor a tag of {architecture}"
        f" ({', '.join(tags) or 'it has none'}).",
        f"Write open_clip:{architecture}/{tags[0] if tags else '/path/to/weights.pt'}.",
    )


def load_open_clip(name: str, device: torch.device) -> OpenClipModel:
    """The model behind ``ARCH/TAG``, ``ARCH/FILE`` or ``FOLDER``; ClippyError names the file that was looked for."""
    wanted = wanted_weights(name)
    settings: dict[str, Any] = {}
    if wanted.tag is not None:
        settings = compat.pretrained_entry(wanted.architecture, wanted.tag)
        weights: Path | None = _downloaded(wanted, settings)
    elif wanted.file is not None:
        settings = _statistics(wanted.architecture)
        weights = wanted.file
    else:
        weights = wanted.folder
        assert weights is not None
        if (weights / CHECKSUMS_FILE).is_file():  # an export of clippy's
            verify_checksums(weights)
        check_config(weights)
    for file in _weight_files(weights):
        check_weight_file(file)
        check_types(file)
    if wanted.file is not None:
        _warn_of_activation(wanted.architecture, wanted.file)
    statistics = {key: settings[key] for key in ("mean", "std") if key in settings}
    entry = wanted.architecture if wanted.folder is None else f"local-dir:{wanted.folder}"
    budget = Budget(_extent(weights if wanted.folder is not None else None), f"{wanted.folder}/{CONFIG}")
    try:
        with sized_weights(budget.take, fill=True):
            model = compat.create_model(
                entry,
                pretrained=None if wanted.folder is not None else str(weights),
                force_quick_gelu=bool(settings.get("quick_gelu")),  # OpenAI's weights are wrong without, silently
                force_preprocess_cfg=statistics,
                require_pretrained=True,
                weights_only=True,
            )
    except ClippyError:
        raise
    except Exception as error:  # open_clip, torch and the hub's client raise many types
        said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch goes on to advise loading it all the same
            said = complaint(error)
        raise ClippyError(
            f"{weights} cannot be loaded as open_clip's {wanted.architecture}: {said}",
            "Check that the architecture fits the weights.",
        ) from error
    tokenize = _tokenizer(wanted, entry)
    if not has_vocabulary(tokenize):
        raise ClippyError(
            f"The tokenizer of open_clip:{name} holds no vocabulary: it cannot tell dog from cat.",
            "Put tokenizer.json and tokenizer_config.json of the model's repository beside its weights.",
        )
    return OpenClipModel(name, model.to(device), tokenize)


def _weight_files(place: Path | None) -> list[Path]:
    """A file of weights itself, or those of a folder and its descriptions: what open_clip may open there."""
    if place is None or is_file(place):
        return [] if place is None else [place]
    return sorted(path for path in place.iterdir() if path.suffix in _READ and not path.is_dir())


def _extent(folder: Path | None) -> Extent:
    """Room for what the weights of a folder can fill, at two bytes a value; a registered architecture has any."""
    if folder is None:
        return Extent(sys.maxsize, sys.maxsize, "its library", fill=True)
    size = sum(path.stat().st_size for path in _weight_files(folder))
    return Extent(2 * size + (1 << 26), NEW.tensors, "its weights", fill=True)


def _warn_of_activation(architecture: str, file: Path) -> None:
    """A warning where a file may have been trained with QuickGELU and the architecture's name says GELU.

    Both have the same tensors. OpenAI's own archives hold three numbers that tell; else the name of the file or its
    folder may hold a tag that open_clip lists for one of both.
    """
    faithful = f"{architecture}{_QUICK}"
    if faithful not in open_clip.list_models():
        return
    place = _plain(f"{file.parent.name} {file.name}")
    tags = set(compat.pretrained_tags(architecture))
    plain = {tag for tag in tags if not compat.pretrained_entry(architecture, tag).get("quick_gelu")}
    quick = {"openai", "quickgelu", *(tags - plain), *(set(compat.pretrained_tags(faithful)) - plain)}
    named_quick = any(_plain(tag) in place for tag in quick)
    if not named_quick and any(_plain(tag) in place for tag in plain):
        return
    says = named_quick or compat.is_openai_archive(file)
    logger.warning(
        "%s: %s, and open_clip:%s computes GELU. If it was trained with QuickGELU, as OpenAI's, MetaCLIP's and DFN's "
        "weights were, every embedding is wrong; name it open_clip:%s/%s then.",
        file,
        "seems to be trained with QuickGELU" if says else "does not say whether it was trained with GELU or QuickGELU",
        architecture,
        faithful,
        file,
    )


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _downloaded(wanted: Wanted, settings: dict[str, Any]) -> Path:
    try:
        return compat.pretrained_file(settings)
    except Exception as error:  # as above
        faithful = f"{wanted.architecture}-quickgelu"  # a file does not say which activation it was trained with
        local = faithful if settings.get("quick_gelu") and faithful in open_clip.list_models() else wanted.architecture
        raise ClippyError(
            f"open_clip:{wanted.architecture}/{wanted.tag} looks for {looked_for(settings)}, which cannot be had: "
            f"{complaint(error)}",
            f"Download it elsewhere and pass the file: open_clip:{local}/path/to/weights",
        ) from error


def looked_for(settings: dict[str, Any]) -> str:
    """The Hub's repository and file, or the address, of a pretrained entry."""
    repository, _, file = str(settings.get("hf_hub", "")).rpartition("/")
    if repository:
        return f"{repository}/{file or compat.HUB_FILES[0]}"
    return str(settings.get("url") or settings.get("file"))


def _statistics(architecture: str) -> dict[str, Any]:
    """Mean and standard deviation on which all published weights of an architecture agree; open_clip's otherwise."""
    known = [compat.pretrained_entry(architecture, tag) for tag in compat.pretrained_tags(architecture)]
    pairs = {(tuple(entry["mean"]), tuple(entry["std"])) for entry in known if entry.get("mean") and entry.get("std")}
    if len(pairs) != 1:
        return {}
    mean, std = pairs.pop()
    return {"mean": mean, "std": std}


def _tokenizer(wanted: Wanted, entry: str) -> Callable[[list[str]], Tensor]:
    """open_clip's own, or that of Hugging Face files: beside a local checkpoint where they are there."""
    try:
        return compat.tokenizer(entry, None if wanted.file is None else wanted.file.parent)
    except Exception as error:  # as above
        looked = compat.text_settings(entry).get("hf_tokenizer_name", entry)
        raise ClippyError(
            f"{wanted.architecture} looks for tokenizer.json of {looked}, which cannot be had: {complaint(error)}",
            "Put that repository's tokenizer files beside a local checkpoint: "
            f"open_clip:{wanted.architecture}/path/to/weights",
        ) from error
