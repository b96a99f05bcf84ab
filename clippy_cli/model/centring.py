"""Whether patch embeddings are taken plain, as in the paper, or minus the mean of the training patches."""

from __future__ import annotations

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.clippy import Clippy

FORMS = ("plain", "centred")


def patch_form(model: VisionLanguageModel) -> str | None:
    """What ``embed_patches`` gives by default: ``plain`` or ``centred``; None where a model knows no such choice."""
    if not isinstance(model, Clippy):
        return None
    return "centred" if model.config.inference.centre_patches else "plain"


def with_centring(model: VisionLanguageModel, form: str) -> VisionLanguageModel:
    """Set the form that ``embed_patches`` takes by default; ClippyError where the model has no mean to subtract."""
    if form not in FORMS:
        raise ClippyError(f"Patch embeddings come plain or centred, not {form!r}.", "Choose plain or centred.")
    centre = form == "centred"
    if not isinstance(model, Clippy):
        if centre:
            raise ClippyError(f"{model.name} holds no mean patch embedding.", "Leave --patches out.")
        return model
    if centre and not model.patch_mean.any():
        raise ClippyError(f"{model.name} holds no mean patch embedding.", "Leave --patches out.")
    inference = model.config.inference.model_copy(update={"centre_patches": centre})
    model.config = model.config.model_copy(update={"inference": inference})
    return model
