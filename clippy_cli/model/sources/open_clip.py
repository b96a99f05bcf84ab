"""``open_clip:ARCH/TAG``, ``open_clip:ARCH/FILE`` and ``open_clip:FOLDER``: contrastive models of open_clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clippy_cli.model.compat import hub
from clippy_cli.model.sources.registry import ALL_TASKS, Listed, source

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

PREFIX = "open_clip"
# (name, the Hub's repository), as open_clip lists them; a test compares.
KNOWN = (
    ("ViT-B-16/openai", "timm/vit_base_patch16_clip_224.openai"),
    ("ViT-L-14/openai", "timm/vit_large_patch14_clip_224.openai"),
    ("RN50/openai", "timm/resnet50_clip.openai"),
    ("ViT-B-16/laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    ("ViT-B-16-SigLIP/webli", "timm/ViT-B-16-SigLIP"),
    ("ViT-B-16-SigLIP2/webli", "timm/ViT-B-16-SigLIP2"),
    ("PE-Core-B-16/meta", "timm/PE-Core-B-16"),
)
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@source(PREFIX)
class OpenClipSource:
    """Pretrained pairs of open_clip, local checkpoints of its architectures, folders with ``open_clip_config.json``."""

    takes_dense = True

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where open_clip knows no such architecture or tag and there is no such file or folder."""
        from clippy_cli.model.sources.open_clip_model import wanted_weights

        wanted_weights(name)

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model behind ``ARCH/TAG``, ``ARCH/FILE`` or ``FOLDER``."""
        from clippy_cli.model.sources import open_clip_model

        return open_clip_model.load_open_clip(name, device)

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """Well-known pairs; ``everything`` adds each pair that open_clip lists."""
        for name, repository in KNOWN:
            yield _listed(name, f"hub {repository}", hub.cached(repository, _FILES))
        if everything:
            yield from _all_pairs({name for name, _ in KNOWN})


def _listed(name: str, weights: str, at_hand: bool) -> Listed:
    return Listed(f"{PREFIX}:{name}", PREFIX, ALL_TASKS, weights, at_hand)


def _all_pairs(named: set[str]) -> Iterator[Listed]:
    import open_clip

    from clippy_cli.model.compat.open_clip import hub_place, pretrained_entry

    for architecture, tag in open_clip.list_pretrained():
        name = f"{architecture}/{tag}"
        entry = pretrained_entry(architecture, tag)
        repository, files = hub_place(entry)
        if name in named:
            continue
        if repository:
            yield _listed(name, f"hub {repository}", hub.cached(repository, files))
        else:
            address = str(entry.get("url", ""))
            yield _listed(name, address, (Path.home() / ".cache" / "clip" / address.rpartition("/")[2]).is_file())
