"""Other embeddings of the same weights: the form of patches, their attention, the positions, what a pooling takes in.

Each ``with_`` function gives a view that shares the weights of ``model`` and leaves ``model`` as it is; where nothing
would change it returns ``model``.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.choices import DenseMode, PatchForm, PositionResampling
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.dense.dense import Dense, check_mode


@runtime_checkable
class TakesDense(Protocol):
    """A model whose patches can come by another attention of its last block."""

    def with_dense(self, dense: Dense) -> VisionLanguageModel:
        """A view with patches by ``dense``; ClippyError where they cannot be had so."""
        ...


@runtime_checkable
class TakesPositions(Protocol):
    """A model that may have a position table, which it then resamples to other grids by any rule."""

    @property
    def positions(self) -> PositionResampling | None:
        """The rule; None where there is no table, or only a library's own way."""
        ...

    def with_positions(self, rule: PositionResampling) -> VisionLanguageModel:
        """A view whose table is resampled by ``rule``; for models that have ``positions``."""
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


def position_rule(model: VisionLanguageModel) -> PositionResampling | None:
    """How the model resamples its position table; None where it has none, or knows no such choice."""
    return model.positions if isinstance(model, TakesPositions) else None


def with_positions(model: VisionLanguageModel, rule: str) -> VisionLanguageModel:
    """``model`` with its position table resampled by ``rule``; ClippyError where it has none to resample."""
    wanted = parse_positions(rule)
    own = position_rule(model)
    if not isinstance(model, TakesPositions) or own is None:
        raise ClippyError(
            f"{model.name} has no position table that could be resampled by another rule.", "Leave --positions out."
        )
    return model if own is wanted else model.with_positions(wanted)


def parse_positions(text: str) -> PositionResampling:
    """The rule of that name; ClippyError where there is none."""
    if text not in list(PositionResampling):
        raise ClippyError(f"--positions cannot be {text!r}.", f"Choose among {', '.join(PositionResampling)}.")
    return PositionResampling(text)


def pools_prefix(model: VisionLanguageModel) -> bool | None:
    """Whether max or avg pooling runs over class and register tokens too; None where the model has no such choice."""
    if not isinstance(model, Clippy) or not model.image.num_prefix_tokens:
        return None
    if not model.config.image.pooling.takes_raw_tokens:
        return None
    return model.config.image.pool_prefix_tokens


def with_pool_prefix(model: VisionLanguageModel, include: bool) -> VisionLanguageModel:
    """``model`` with class and register tokens in its pooling, or not; ClippyError where it has no such choice.

    The CLIPpy authors' training and ImageNet evaluation take them in, their ``infer_model.py`` leaves them out.
    """
    own = pools_prefix(model)
    if not isinstance(model, Clippy) or own is None:
        raise ClippyError(
            f"{model.name} does not pool patches by max or avg beside a class token.", "Leave --pool-prefix out."
        )
    if own == include:
        return model
    image = model.config.image.model_copy(update={"pool_prefix_tokens": include})
    return model.view(config=model.config.model_copy(update={"image": image}))
