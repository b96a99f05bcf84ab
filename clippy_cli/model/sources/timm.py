"""``timm:NAME`` and ``timm:NAME@FILE``: image-only trunks (DINO, DINOv2, MoCo, DeiT), whose patches can be grouped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clippy_cli.errors import ClippyError
from clippy_cli.model.compat import hub
from clippy_cli.model.sources.registry import GROUP_ONLY, Listed, source
from clippy_cli.regular_files import is_file

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

PREFIX = "timm"
# As timm lists them; a test compares. Each is in the repository of timm that is called like it.
KNOWN = (
    "vit_small_patch16_224.dino",
    "vit_base_patch16_224.dino",
    "vit_base_patch14_dinov2.lvd142m",
    "deit_small_patch16_224.fb_in1k",
)
_FILES = ("model.safetensors", "pytorch_model.bin")


@source(PREFIX)
class TimmSource:
    """Trunks that timm has pretrained weights of, and local weight files of its architectures."""

    takes_dense = True

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where timm knows no such model, the file after ``@`` is missing, or ``texts`` are wanted."""
        import timm

        model, at, file = name.partition("@")
        if not timm.is_model(model.partition(".")[0]):
            near = ", ".join(timm.list_models(f"*{model.partition('.')[0].split('_')[0]}*")[:4])
            raise ClippyError(
                f"timm has no model {model!r}{f'; near it: {near}' if near else ''}.",
                "List them with: python -c \"import timm; print(timm.list_models('vit_*', pretrained=True))\"",
            )
        if at and not is_file(Path(file).expanduser()):
            raise ClippyError(
                f"timm:{name} looks for the file {file or '(none is named)'}, which is not there.",
                "Check what follows the @.",
            )
        if texts:
            raise no_texts(name)

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The trunk behind ``NAME`` or ``NAME@FILE``."""
        from clippy_cli.model.sources import timm_trunk

        self.check(name, texts=False)
        return timm_trunk.load_timm(name, device)

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """Well-known trunks, and one whose weights no hub holds in a form that can be loaded by name."""
        for name in KNOWN:
            repository = f"timm/{name}"
            yield Listed(f"{PREFIX}:{name}", PREFIX, GROUP_ONLY, f"hub {repository}", hub.cached(repository, _FILES))
        moco = "MoCo v3's release, vit-s-300ep.pth.tar"
        yield Listed(f"{PREFIX}:vit_small_patch16_224@FILE", PREFIX, GROUP_ONLY, moco, False)


def no_texts(name: str) -> ClippyError:
    """Why an image-only trunk cannot take part where there are words."""
    return ClippyError(
        f"timm:{name} is an image-only trunk: it was trained without texts, so it cannot compare patches or images "
        "with labels.",
        "It can be grouped: clippy group, clippy evaluate --task group; or be the --proxy of an open_clip: model.",
    )
