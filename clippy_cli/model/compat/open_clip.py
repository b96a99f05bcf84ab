"""open_clip: its towers from the inside, its list of weights, loading without a network.

Shapes: see ``model/base.py``; M heads of width d, T = 1+N tokens.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIPTextCfg
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.compat import hub
from clippy_cli.model.compat.transformers import quiet_session
from clippy_cli.model.dense.block import OpenBlock
from clippy_cli.model.positions import resample_positions
from clippy_cli.regular_files import is_folder

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_RESNET_STRIDE = 32

__all__ = ["ModifiedResNet", "TextTransformer", "TimmModel", "VisionTransformer"]


@contextmanager
def session() -> Iterator[bool]:
    """A quiet session of the hub's clients, in which open_clip, which logs to the root logger, is quiet too."""
    root, handler = logging.getLogger(), logging.NullHandler()  # without a handler the root writes to the terminal
    root.addHandler(handler)
    try:
        with quiet_session() as local_files_only:
            yield local_files_only
    finally:
        root.removeHandler(handler)


def text_fields() -> set[str]:
    """Fields that open_clip's configuration of a text tower has."""
    return {field.name for field in fields(CLIPTextCfg)}


def pretrained_tags(architecture: str) -> list[str]:
    """Tags of the weights that open_clip lists for an architecture."""
    return [str(tag) for tag in list_pretrained_tags_by_model(architecture)]


def pretrained_entry(architecture: str, tag: str) -> dict[str, Any]:
    """Where the weights are and what they were trained with; {} for a pair that open_clip does not list."""
    return dict(get_pretrained_cfg(architecture, tag) or {})


def hub_place(entry: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Repository and files, the preferred one first, of a pretrained entry; ("", ()) where it has an address alone."""
    repository, _, file = str(entry.get("hf_hub", "")).rpartition("/")
    if not repository:
        return "", ()
    if not file:
        return repository, HUB_FILES
    return repository, tuple(dict.fromkeys((str(Path(file).with_suffix(".safetensors")), file)))


def pretrained_file(entry: dict[str, Any]) -> Path:
    """The weights of a pretrained entry, from the cache alone where there is no network; raises many types."""
    repository, files = hub_place(entry)
    with session() as local:
        if local and repository and "file" not in entry:
            return hub.download(repository, files, local_files_only=True)
        return Path(download_pretrained(entry))


def create_model(name: str, **arguments: Any) -> Any:
    """``open_clip.create_model``; the configuration of a Hugging Face text tower is local where there is no network."""
    with session() as local:
        text = dict((open_clip.get_model_config(name) or {}).get("text_cfg", {})) if local else {}
        if "hf_model_name" in text and not is_folder(Path(text["hf_model_name"])):
            folder = huggingface_hub.snapshot_download(
                text["hf_model_name"], allow_patterns=["config.json"], local_files_only=True
            )
            arguments["text_cfg"] = {**text, "hf_model_name": folder, "hf_model_pretrained": False}
        return open_clip.create_model(name, **arguments)


def is_openai_archive(file: Path) -> bool:
    """Whether a file holds the numbers that OpenAI stores beside the tensors, as TorchScript or as a dictionary."""
    try:
        with zipfile.ZipFile(file) as archive:
            listed = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return listed is not None and b"input_resolution" in archive.read(listed)
    except (OSError, zipfile.BadZipFile):
        return False


def text_settings(name: str) -> dict[str, Any]:
    """The ``text_cfg`` of an architecture or a ``local-dir:``."""
    return dict((open_clip.get_model_config(name) or {}).get("text_cfg", {}))


def tokenizer(name: str, beside: Path | None) -> Callable[[list[str]], Tensor]:
    """open_clip's own, or that of Hugging Face files: those in ``beside`` where they are there. Raises many types."""
    settings = text_settings(name)
    with session() as local:
        if not settings.get("hf_tokenizer_name"):
            return open_clip.get_tokenizer(name)  # type: ignore[no-any-return]
        if beside is not None and (beside / "tokenizer.json").is_file():
            return HFTokenizer(  # type: ignore[no-any-return]
                str(beside),
                context_length=settings.get("context_length", 77),
                tokenizer_mode=settings.get("tokenizer_mode"),
                **settings.get("tokenizer_kwargs", {}),
            )
        return open_clip.get_tokenizer(name, local_files_only=local)  # type: ignore[no-any-return]


def stride(visual: Any) -> int:
    """Side in pixels of what one patch of an image tower stands for."""
    if isinstance(visual, TimmModel):
        return int(visual.trunk.feature_info[-1]["reduction"])
    if isinstance(visual, ModifiedResNet):
        return _RESNET_STRIDE
    size = visual.patch_size
    return int(size[0] if isinstance(size, tuple | list) else size)


def resnet_patches(visual: ModifiedResNet, images: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,h,w,D): value and output projection of the attention pooling at every place."""
    features = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        features = layer(features)
    places = features.permute(0, 2, 3, 1)  # (B,F,h,w) -> (B,h,w,F)
    vectors: Tensor = visual.attnpool.c_proj(visual.attnpool.v_proj(places))
    return vectors


def require_openable(visual: Any) -> None:
    """ClippyError unless ``visual`` is a vision transformer whose norm and projection fit each patch."""
    if not isinstance(visual, VisionTransformer):
        raise ClippyError(f"Dense modes need open_clip's vision transformer, not its {type(visual).__name__}.")
    if visual.attn_pool is not None:
        raise ClippyError(
            "This tower pools by attention (CoCa): its patches never enter the joint space one by one.",
            "Choose a ViT with a class token or average pooling.",
        )
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise ClippyError(f"Dense modes cannot take a {type(block).__name__} apart.", "Choose a plain ViT.")


def embed(visual: VisionTransformer, images: Tensor, grid: tuple[int, int], positions: PositionResampling) -> Tensor:
    """(B,3,H,W) -> (B,1+N,width): the class token, then patches, with positions resampled to the grid."""
    patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).mT  # (B,width,h,w) -> (B,N,width)
    prefix = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    table = resample_positions(visual.positional_embedding[None], grid, visual.grid_size, 1, positions)
    tokens: Tensor = visual.ln_pre(torch.cat([prefix, patches], dim=1) + table.to(patches.dtype))
    return tokens


def joint_patches(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """(B,1+N,width) tokens after the last block -> (B,N,D): final norm and projection of every patch."""
    patches: Tensor = visual.ln_post(tokens[:, 1:])
    return patches if visual.proj is None else patches @ visual.proj


def open_block(block: ResidualAttentionBlock, tokens: Tensor) -> OpenBlock:
    """A plain block taken apart for (B,T,width) tokens."""
    attention: nn.MultiheadAttention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)  # (B,T,3*width)
    queries, keys, values = projected.view(*tokens.shape[:2], 3, attention.num_heads, -1).permute(
        2, 0, 3, 1, 4
    )  # (B,M,T,d)
    return OpenBlock(
        queries,
        keys,
        values,
        join=lambda heads: block.ls_1(attention.out_proj(heads.transpose(1, 2).flatten(2))),
        feed_forward=lambda mixed: block.ls_2(block.mlp(block.ln_2(mixed))),
    )
