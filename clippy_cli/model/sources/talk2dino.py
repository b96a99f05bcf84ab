"""``talk2dino:FILE``: Talk2DINO (arXiv 2411.19331), CLIP's texts mapped among the patches of DINOv2 or DINOv3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clippy_cli.model.sources.parts import split_parts
from clippy_cli.model.sources.registry import ALL_TASKS, Listed, source

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

PREFIX = "talk2dino"
PARTS = {"text": "open_clip", "trunk": "timm"}
TEXT = "ViT-B-16/openai"
# By the width of the map's output.
TRUNKS = {768: "vit_base_patch14_reg4_dinov2.lvd142m", 1024: "vit_large_patch14_reg4_dinov2.lvd142m"}
_EXAMPLES = (
    ("vitb_mlp_infonce.pth", "the authors' map; text and trunk from open_clip and timm"),
    ("dinov3_vitb_mlp_infonce.pth,trunk=vit_base_patch16_dinov3.lvd1689m", "the same for DINOv3"),
)


@source(PREFIX)
class Talk2DinoSource:
    """A map from texts to patches; its text tower and trunk are the published ones, or those that the name gives."""

    takes_dense = False

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where the map's file is missing or a part's own source does not know it."""
        split_parts(PREFIX, name, PARTS)

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model of ``FILE[,text=ARCH/WEIGHTS][,trunk=NAME[@FILE]]``."""
        from clippy_cli.model.sources import talk2dino_model

        return talk2dino_model.load_talk2dino(split_parts(PREFIX, name, PARTS), device)

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """How the published maps are written; no hub holds them in a form that can be loaded by name."""
        for name, weights in _EXAMPLES:
            yield Listed(f"{PREFIX}:{name}", PREFIX, ALL_TASKS, weights, False)
