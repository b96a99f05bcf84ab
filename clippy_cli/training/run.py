"""One training run from recipe to model directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clippy_cli
from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture, parse_model_config
from clippy_cli.model.store import save_model
from clippy_cli.recipe_schema import Recipe, SourceRecipe
from clippy_cli.training.checkpoint import check_same_recipe, latest_checkpoint, load_checkpoint
from clippy_cli.training.events import Event, OnEvent, Started, StopRequested
from clippy_cli.training.feature_cache import open_cache
from clippy_cli.training.forward import check_precision
from clippy_cli.training.loader import Feed, ImageFeed, open_source
from clippy_cli.training.loop import Trainer
from clippy_cli.training.loss_plot import draw_loss
from clippy_cli.training.offset import Offset, measure_offset
from clippy_cli.training.optim import freeze
from clippy_cli.training.run_folder import RunFolder

OFFSET_IMAGES = 2048
OFFSET_BATCH = 64


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. ``offset`` is None where the caller stopped it before the last step."""

    model: Clippy
    folder: RunFolder
    step: int
    total_steps: int
    samples: int
    broken: dict[int, str]
    offset: Offset | None

    @property
    def finished(self) -> bool:
        return self.offset is not None


def train(
    recipe: Recipe,
    *,
    device: str = "auto",
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train by ``recipe`` and write the model directory into its run folder.

    Args:
        recipe: what to train, on what, how; see :mod:`clippy_cli.recipe`.
        device: auto, cpu, cuda, cuda:N or mps.
        resume: go on from the newest checkpoint in the run folder, or start where there is none.
        on_event: called with every event, in order.
        should_stop: asked after each step; True saves a checkpoint and returns an unfinished result.

    Raises:
        ClippyError: a used run folder without ``resume``, missing data or weights, all samples broken, divergence.
    """
    folder = RunFolder(Path(recipe.output))
    if not resume:
        folder.refuse_if_used()
    target = resolve_device(device)
    config = model_config(recipe)
    check_precision(recipe.train.precision, target, config.text.encoder.get("model_type"))
    newest = latest_checkpoint(folder.checkpoints)
    checkpoint = load_checkpoint(newest) if newest else None
    if checkpoint is not None:
        check_same_recipe(checkpoint, recipe.model_dump(mode="json"), folder.root)

    images = _open_feed(recipe, recipe.data.source, config, target)
    validation = None
    if recipe.data.validation is not None:
        validation = _open_feed(recipe, recipe.data.validation, config, target)
    steps_per_epoch = len(images) // recipe.train.batch_size
    if steps_per_epoch == 0:
        raise ClippyError(
            f"The data holds {len(images)} samples and train.batch_size is {recipe.train.batch_size}: not one batch.",
            "Lower train.batch_size.",
        )
    total_steps = recipe.train.steps or (recipe.train.epochs or 0) * steps_per_epoch
    model = _build(recipe, config).to(target)
    h, w = model.image.grid_size(config.preprocess.resolution, config.preprocess.resolution)

    def tell(event: Event) -> None:
        folder.append(event)
        on_event(event)

    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        trainer = Trainer(model, recipe, h * w, total_steps, steps_per_epoch, folder.checkpoints, tell, should_stop)
        if checkpoint is not None and newest is not None:
            trainer.restore(checkpoint, newest)
        folder.prepare(recipe, trainer.step)
        tell(
            Started(
                data=images.source.describe(),
                samples=len(images),
                steps_per_epoch=steps_per_epoch,
                total_steps=total_steps,
                first_step=trainer.step,
                trainable_parameters=sum(parameter.numel() for parameter in trainer.trainable),
                device=str(target),
                problems=(*images.source.problems, *(validation.source.problems if validation else ())),
            )
        )
        offset: Offset | None = None
        try:
            feed: Feed = images
            held_out: Feed | None = validation
            if recipe.data.cache_features:
                flip = recipe.data.flip
                feed = open_cache(folder.cache / "train", model, images, recipe, tell, should_stop, flip=flip)
                if validation is not None:
                    place = folder.cache / "validation"
                    held_out = open_cache(place, model, validation, recipe, tell, should_stop, flip=False)
            trainer.fit(feed, held_out)
            offset = _finish(trainer, feed, folder)
        except StopRequested:
            pass
    draw_loss(folder.records(), folder.plot, recipe.name)
    return TrainingResult(model.eval(), folder, trainer.step, total_steps, len(images), trainer.broken, offset)


def model_config(recipe: Recipe) -> ModelConfig:
    """The architecture with the recipe's name, pooling, resolution and centring; ClippyError where they clash."""
    fields = load_architecture(recipe.model.architecture).model_dump()
    fields["name"] = recipe.name
    if recipe.model.pooling is not None:
        fields["image"]["pooling"] = recipe.model.pooling
    if recipe.model.centre_patches is not None:
        fields["inference"]["centre_patches"] = recipe.model.centre_patches
    if recipe.data.resolution is not None:
        fields["preprocess"]["resolution"] = recipe.data.resolution
    return parse_model_config(fields, where=f"{recipe.model.architecture} with the recipe's changes")


def _build(recipe: Recipe, config: ModelConfig) -> Clippy:
    image, text = recipe.model.image, recipe.model.text
    model = build_model(config, image_init=image.init, text_init=text.init, tokenizer=text.tokenizer, seed=recipe.seed)
    freeze(model, recipe.model, recipe.train)
    return model


def _open_feed(recipe: Recipe, source: SourceRecipe, config: ModelConfig, device: torch.device) -> ImageFeed:
    resolution = config.preprocess.resolution
    return ImageFeed(
        open_source(source, resolution), recipe.data, resolution, seed=recipe.seed, pin_memory=device.type == "cuda"
    )


def _finish(trainer: Trainer, feed: Feed, folder: RunFolder) -> Offset:
    """Measure the offset of patches over training images spread evenly, and write the model directory."""
    model = trainer.model.eval()
    count = min(OFFSET_IMAGES, len(feed))
    offset = measure_offset(model, feed.plain(np.arange(count) * len(feed) // count, OFFSET_BATCH))
    model.patch_mean.copy_(offset.patch_mean)
    model.config = model.config.model_copy(update={"training": _provenance(trainer, offset, len(feed))})
    save_model(model, folder.model)
    return offset


def _provenance(trainer: Trainer, offset: Offset, samples: int) -> dict[str, Any]:
    recipe = trainer.recipe
    return {
        "clippy": clippy_cli.__version__,
        "recipe": recipe.name,
        "architecture": Path(recipe.model.architecture).stem,
        "image_init": Path(recipe.model.image.init).name,
        "text_init": Path(recipe.model.text.init).name,
        "data": recipe.data.source.kind,
        "samples": samples,
        "steps": trainer.step,
        "batch_size": recipe.train.batch_size,
        "seed": recipe.seed,
        "pooled_patch_cosine": round(offset.pooled_patch_cosine, 4),
    }
