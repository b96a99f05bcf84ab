"""``hf:NAME`` and ``hf:FOLDER``: CLIP, SigLIP, ALIGN and GroupViT of the transformers library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clippy_cli.errors import ClippyError
from clippy_cli.model.compat import hub
from clippy_cli.model.sources.registry import ALL_TASKS, Listed, regular_files, source
from clippy_cli.regular_files import is_folder

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

PREFIX = "hf"
KNOWN = (
    "nvidia/groupvit-gcc-yfcc",
    "kakaobrain/align-base",
    "google/siglip-base-patch16-224",
    "google/siglip2-base-patch16-224",
)
_FILES = ("model.safetensors", "pytorch_model.bin")
_READ = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")


@source(PREFIX)
class TransformersSource:
    """Repositories of the Hugging Face hub, and folders with the same files."""

    takes_dense = False

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where ``name`` is written as a folder and is none, or lacks ``config.json``."""
        folder = Path(name).expanduser()
        if is_folder(folder) and not (folder / "config.json").is_file():
            inside = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
            raise ClippyError(f"hf:{name} lacks config.json; the folder holds {inside}.", "Copy the whole repository.")
        if not is_folder(folder) and (name.startswith((".", "/", "~")) or name.count("/") > 1):
            raise ClippyError(f"hf:{name} is neither a directory nor a Hugging Face model ID.", "Check the path.")

    def text_files(self, name: str) -> dict[str, Path] | None:
        """Configurations, weights and tokenizer of a folder; None for a name on the hub."""
        folder = Path(name).expanduser()
        return regular_files(folder, _READ) if is_folder(folder) else None

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model behind a name on the hub or a folder."""
        from clippy_cli.model.sources import transformers_model

        self.check(name, texts=False)
        return transformers_model.load_transformers(name, device)

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """Well-known repositories."""
        for name in KNOWN:
            yield Listed(f"{PREFIX}:{name}", PREFIX, ALL_TASKS, f"hub {name}", hub.cached(name, _FILES))
