"""Models of clippy itself: shipped names, model directories, run folders. They have no prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clippy_cli.model.registry import CONFIG_FILE, find_model, shipped_models
from clippy_cli.model.sources.registry import ALL_TASKS, OWN, Listed, regular_files, source

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

_RUNS = Path("runs")


@source(OWN)
class DirectorySource:
    """What ``clippy train`` and ``clippy import`` write, and what ships with the package."""

    takes_dense = True

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where no model directory is behind ``name``."""
        find_model(name)

    def text_files(self, name: str) -> dict[str, Path]:
        """Configuration, weights and tokenizer."""
        return regular_files(find_model(name), (CONFIG_FILE, "*.safetensors", "tokenizer/*"))

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model of a name, directory or run folder."""
        from clippy_cli.model import store

        return store.load_model_directory(name, device=str(device), texts_later=True)

    def examples(self, *, everything: bool) -> Iterator[Listed]:
        """Shipped models, the runs of this folder, and what ``clippy import`` makes."""
        for name in shipped_models():
            yield Listed(name, OWN, ALL_TASKS, "ships with clippy", True)
        for config in sorted(_RUNS.glob(f"*/model/{CONFIG_FILE}")):
            yield Listed(str(config.parents[1]), OWN, ALL_TASKS, str(config.parent), True)
        yield Listed("DIR of clippy import", OWN, ALL_TASKS, "the authors' clippy_5k.pt", False)
