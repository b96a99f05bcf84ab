"""Other patch embeddings of the same weights: their form, and the attention that they come by.

Both functions give a view that shares the weights of ``model`` and leave ``model`` as it is; where nothing would change
they return it.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.choices import DenseMode, PatchForm
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.dense.dense import Dense, check_mode


@runtime_checkable
class TakesDense(Protocol):
    """A model whose patches can come by another attention of its last block."""

    def with_dense(self, dense: Dense) -> VisionLanguageModel:
        """A view with patches by ``dense``; ClippyError where they cannot be had so."""
        ...


def patch_form(model: VisionLanguageModel) -> PatchForm | None:
    """What ``embed_patches`` gives by default; None where a model knows no such choice."""
    if not isinstance(model, Clippy):
        return None
    if model.config.inference.affinity_block is not None:
        return PatchForm.SHARED
    return PatchForm.CENTERED if model.config.inference.centre_patches else PatchForm.PLAIN


def with_patch_form(model: VisionLanguageModel, form: str) -> VisionLanguageModel:
    """``model`` with ``embed_patches`` in that form; ClippyError where it has no such form."""
    if form not in list(PatchForm):
        raise ClippyError(f"There is no form of patch embeddings called {form!r}.", f"Choose {', '.join(PatchForm)}.")
    if not isinstance(model, Clippy):
        if form != PatchForm.PLAIN:
            raise ClippyError(f"{model.name} has patch embeddings of one form only.", "Leave --patches out.")
        return model
    if form == PatchForm.CENTERED and not model.patch_mean.any():
        raise ClippyError(f"{model.name} holds no mean patch embedding.", "Leave --patches out.")
    if form == patch_form(model):
        return model
    if form == PatchForm.SHARED:
        raise ClippyError(
            f"{model.name} has no inference.affinity_block, by which its patches could share embeddings.",
            "Leave --patches out.",
        )
    changed: dict[str, Any] = {"centre_patches": form == PatchForm.CENTERED, "affinity_block": None}
    inference = model.config.inference.model_copy(update=changed)
    return model.view(config=model.config.model_copy(update={"inference": inference}))


def with_dense_mode(
    model: VisionLanguageModel, mode: str, proxy: VisionLanguageModel | None = None
) -> VisionLanguageModel:
    """``model`` with patches by ``mode``; everything else, image and text embeddings included, is the model's own.

    ``proxy`` is the model whose patches steer proxyclip: any, ``model`` too. ClippyError for a mode and a proxy that do
    not go together, and for a model whose last block cannot be taken apart.
    """
    dense = Dense(check_mode(mode, proxy), proxy)
    if dense.mode is DenseMode.PLAIN:
        return model
    if not isinstance(model, TakesDense):
        raise ClippyError(
            f"{model.name} has no last block whose attention could be changed to {mode}.",
            "Leave --dense and --proxy out.",
        )
    return model.with_dense(dense)
