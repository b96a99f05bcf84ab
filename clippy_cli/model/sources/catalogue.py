"""Which models there are: what ships, what was trained in this folder, and what other libraries are known to hold.

Nothing is loaded and nothing is asked of a network, so that the list comes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from clippy_cli.model.registry import shipped_models

KINDS = ("clippy", "open_clip", "hf", "timm")
ALL_TASKS = "segment, group, classify"
GROUP_ONLY = "group"
_RUNS = Path("runs")
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Listed:
    """One model that ``--model`` takes.

    Attributes:
        source: what to write after ``--model``.
        kind: clippy, open_clip, hf or timm.
        tasks: what it can do.
        weights: where its weights come from.
        at_hand: whether they are on this machine.
    """

    source: str
    kind: str
    tasks: str
    weights: str
    at_hand: bool


# (source, the Hub's repository); open_clip's pairs and timm's names are checked against their registries by a test.
KNOWN = (
    ("open_clip:ViT-B-16/openai", "timm/vit_base_patch16_clip_224.openai"),
    ("open_clip:ViT-L-14/openai", "timm/vit_large_patch14_clip_224.openai"),
    ("open_clip:RN50/openai", "timm/resnet50_clip.openai"),
    ("open_clip:ViT-B-16/laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    ("open_clip:ViT-B-16-SigLIP/webli", "timm/ViT-B-16-SigLIP"),
    ("hf:nvidia/groupvit-gcc-yfcc", "nvidia/groupvit-gcc-yfcc"),
    ("hf:kakaobrain/align-base", "kakaobrain/align-base"),
    ("hf:google/siglip-base-patch16-224", "google/siglip-base-patch16-224"),
    ("hf:google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224"),
    ("timm:vit_small_patch16_224.dino", "timm/vit_small_patch16_224.dino"),
    ("timm:vit_base_patch16_224.dino", "timm/vit_base_patch16_224.dino"),
    ("timm:vit_base_patch14_dinov2.lvd142m", "timm/vit_base_patch14_dinov2.lvd142m"),
    ("timm:deit_small_patch16_224.fb_in1k", "timm/deit_small_patch16_224.fb_in1k"),
)
# Weights that no hub holds in a form that can be loaded by name.
BY_HAND = (
    Listed("timm:vit_small_patch16_224@FILE", "timm", GROUP_ONLY, "MoCo v3's release, vit-s-300ep.pth.tar", False),
    Listed("DIR of clippy import", "clippy", ALL_TASKS, "the authors' clippy_5k.pt", False),
)


def list_models(*, everything: bool = False) -> list[Listed]:
    """Shipped models, runs of this folder, then other libraries'; ``everything`` adds each pair of open_clip."""
    shipped = [Listed(name, "clippy", ALL_TASKS, "ships with clippy", True) for name in shipped_models()]
    runs = [
        Listed(str(config.parents[1]), "clippy", ALL_TASKS, str(config.parent), True)
        for config in sorted(_RUNS.glob("*/model/config.json"))
    ]
    known = [_hub_model(source, repository, _hub_files(source)) for source, repository in KNOWN]
    named = {source for source, _ in KNOWN}
    more = [entry for entry in _open_clip_pairs() if entry.source not in named] if everything else []
    return [*shipped, *runs, *known, *more, *BY_HAND]


def _hub_files(source: str) -> Sequence[str]:
    return _OPEN_CLIP_FILES if source.startswith("open_clip:") else _FILES


def _hub_model(source: str, repository: str, files: Sequence[str]) -> Listed:
    kind = source.partition(":")[0]
    cached = any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in files)
    return Listed(source, kind, GROUP_ONLY if kind == "timm" else ALL_TASKS, f"hub {repository}", cached)


def _open_clip_pairs() -> Iterator[Listed]:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    for architecture, tag in list_pretrained():
        source = f"open_clip:{architecture}/{tag}"
        settings = get_pretrained_cfg(architecture, tag)
        repository, _, file = settings.get("hf_hub", "").rpartition("/")
        if repository:
            yield _hub_model(source, repository, (file,) if file else _OPEN_CLIP_FILES)
        else:
            address = settings.get("url", "")
            cached = (Path.home() / ".cache" / "clip" / address.rpartition("/")[2]).is_file()
            yield Listed(source, "open_clip", ALL_TASKS, address, cached)
