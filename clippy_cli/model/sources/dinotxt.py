"""``dinotxt:NAME``, ``dinotxt:FOLDER`` and ``dinotxt:FILE,FILE``: dino.txt, texts aligned with DINOv2 or DINOv3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clippy_cli.errors import ClippyError
from clippy_cli.model.sources.registry import ALL_TASKS, Listed, source
from clippy_cli.regular_files import is_file, is_folder

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

PREFIX = "dinotxt"
WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class Release:
    """What a release is made of: files of the public code's hub, and timm's name of the same trunk.

    Attributes:
        files: what has to be there.
        trunk: the trunk's own file; without it the trunk is taken from the Hugging Face hub, as timm holds it.
        where: who publishes ``files``.
    """

    files: tuple[str, ...]
    trunk: str
    where: str


# File names: ``dinov2/hub/dinotxt.py`` and ``dinov3/hub/dinotxt.py`` of the public code.
RELEASES = {
    "dinov2-l": Release(
        (
            "dinov2_vitl14_reg4_dinotxt_tet1280d20h24l_vision_head.pth",
            "dinov2_vitl14_reg4_dinotxt_tet1280d20h24l_text_encoder.pth",
        ),
        "dinov2_vitl14_reg4_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/",
    ),
    "dinov3-l": Release(
        ("dinov3_vitl16_dinotxt_vision_head_and_text_encoder-a442d8f5.pth",),
        "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
    ),
}


@source(PREFIX)
class DinoTxtSource:
    """Published checkpoints in torch.hub's cache, or any files that hold the parts of a dino.txt."""

    takes_dense = True

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where a file or folder is missing."""
        wanted_files(name)

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model of a release, a folder, or files; the tensors in them say which part each is."""
        from clippy_cli.model.sources import dinotxt_model

        return dinotxt_model.load_dinotxt(wanted_files(name)).to(device).eval()

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """The releases, and your own files."""
        for name, release in RELEASES.items():
            at_hand = all((_cache() / file).is_file() for file in release.files)
            weights = f"cache of torch.hub: {', '.join(release.files)}"
            yield Listed(f"{PREFIX}:{name}", PREFIX, ALL_TASKS, weights, at_hand)
        yield Listed(f"{PREFIX}:FILE,FILE", PREFIX, ALL_TASKS, "vision head, text encoder, trunk", False)


def wanted_files(name: str) -> tuple[Path, ...]:
    """The weight files behind a release's name, a folder, or paths with commas between; ClippyError for none."""
    release = RELEASES.get(name)
    if release is not None:
        needed = [_cache() / file for file in release.files]
        missing = [path.name for path in needed if not path.is_file()]
        if missing:
            raise ClippyError(
                f"{PREFIX}:{name} looks for {' and '.join(missing)} in {_cache()}, which lacks "
                f"{'them' if len(missing) > 1 else 'it'}.",
                f"Download from {release.where} and put the files there, or pass them: {PREFIX}:FILE,FILE",
            )
        trunk = _cache() / release.trunk
        return (*needed, trunk) if trunk.is_file() else tuple(needed)
    folder = Path(name).expanduser()
    if is_folder(folder):
        files = tuple(sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS))
        if not files:
            raise ClippyError(f"{PREFIX}:{name}: the folder holds no weight file ({', '.join(WEIGHTS)}).", _HINT)
        return files
    files = tuple(Path(part.strip()).expanduser() for part in name.split(","))
    for path in files:
        if not is_file(path):
            raise ClippyError(
                f"{PREFIX}:{name} looks for the file {path}, which is not there, and no release is called so; "
                f"there are {', '.join(RELEASES)}.",
                _HINT,
            )
    return files


_HINT = (
    f"Write {PREFIX}:FOLDER, or the files of vision head, text encoder and (unless timm has it) trunk with commas "
    f"between: {PREFIX}:HEAD.pth,TEXT.pth,TRUNK.pth"
)


def _cache() -> Path:
    """Where torch.hub keeps the checkpoints that it downloads."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"
