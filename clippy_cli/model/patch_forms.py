"""Which form of patch embeddings is taken: plain as in the paper, minus the mean training patch, or shared."""

from __future__ import annotations

from typing import Any

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.clippy import Clippy

FORMS = ("plain", "centred", "shared")


def patch_form(model: VisionLanguageModel) -> str | None:
    """What ``embed_patches`` gives by default, one of ``FORMS``; None where a model knows no such choice."""
    if not isinstance(model, Clippy):
        return None
    if model.config.inference.affinity_block is not None:
        return "shared"
    return "centred" if model.config.inference.centre_patches else "plain"


def with_patch_form(model: VisionLanguageModel, form: str) -> VisionLanguageModel:
    """Set the form that ``embed_patches`` takes by default; ClippyError where the model has no such form."""
    if form not in FORMS:
        raise ClippyError(f"There is no form of patch embeddings called {form!r}.", f"Choose {', '.join(FORMS)}.")
    if not isinstance(model, Clippy):
        if form != "plain":
            raise ClippyError(f"{model.name} has patch embeddings of one form only.", "Leave --patches out.")
        return model
    if form == "centred" and not model.patch_mean.any():
        raise ClippyError(f"{model.name} holds no mean patch embedding.", "Leave --patches out.")
    if form == patch_form(model):
        return model
    if form == "shared":
        raise ClippyError(
            f"{model.name} has no inference.affinity_block, by which its patches could share embeddings.",
            "Leave --patches out.",
        )
    changed: dict[str, Any] = {"centre_patches": form == "centred", "affinity_block": None}
    inference = model.config.inference.model_copy(update=changed)
    model.config = model.config.model_copy(update={"inference": inference})
    return model
