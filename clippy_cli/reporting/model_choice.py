"""A loaded model and how it was asked for, which is what every result's settings begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clippy_cli.data.text_cache import TextCache
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.patch_forms import position_rule
from clippy_cli.model.precision import is_compiled, precision_of


@dataclass(frozen=True)
class ModelChoice:
    """A loaded model, how it was asked for, and where embeddings of its texts are kept, if anywhere."""

    model: VisionLanguageModel
    source: str
    dense: str | None = None
    proxy: str | None = None
    cache: TextCache | None = None

    def settings(self, command: str) -> dict[str, Any]:
        """The first lines of a result's settings."""
        return {
            "command": command,
            "model": self.source,
            "dense": self.dense,
            "proxy": self.proxy,
            "positions": position_rule(self.model),
            **arithmetic(self.model),
        }


def arithmetic(model: VisionLanguageModel) -> dict[str, Any]:
    """The lines of a result's settings that say what the image tower computed in."""
    return {"precision": str(precision_of(model)), **({"compiled": True} if is_compiled(model) else {})}
