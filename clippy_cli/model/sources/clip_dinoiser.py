"""``clip-dinoiser:FILE``: CLIP-DINOiser (arXiv 2312.12359), MaskCLIP's patches pooled by learned correlations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clippy_cli.model.sources.parts import split_parts
from clippy_cli.model.sources.registry import ALL_TASKS, Listed, source

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

PREFIX = "clip-dinoiser"
PARTS = {"clip": "open_clip"}
CLIP = "ViT-B-16/laion2b_s34b_b88k"


@source(PREFIX)
class ClipDinoiserSource:
    """Two small convolutions; their CLIP is the published one, or the one that the name gives."""

    takes_dense = False

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where the file is missing or open_clip does not know the part."""
        split_parts(PREFIX, name, PARTS)

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model of ``FILE[,clip=ARCH/WEIGHTS]``."""
        from clippy_cli.model.sources import clip_dinoiser_model

        return clip_dinoiser_model.load_clip_dinoiser(split_parts(PREFIX, name, PARTS), device)

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """How the published checkpoint is written."""
        yield Listed(f"{PREFIX}:last.pt", PREFIX, ALL_TASKS, "the authors' checkpoint; CLIP from open_clip", False)
