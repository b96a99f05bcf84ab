"""One training run from recipe to model directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import clippy_cli
from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture, parse_model_config
from clippy_cli.model.store import save_model
from clippy_cli.processes import ALONE, Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.recipe.smoke import is_smoke
from clippy_cli.training.checkpoint import check_data, check_fits, latest_checkpoint, load_checkpoint
from clippy_cli.training.checks import check_launch, check_tower
from clippy_cli.training.events import (
    BestChanged,
    Event,
    OffsetProgress,
    OnEvent,
    ShouldStop,
    Started,
    Stop,
    StopRequested,
)
from clippy_cli.training.feature_cache import CachedFeed, build_cache
from clippy_cli.training.feeds import open_feed
from clippy_cli.training.hooks import Hooks
from clippy_cli.training.loader import Feed, ImageFeed
from clippy_cli.training.loop import Trainer
from clippy_cli.training.loss_plot import draw_loss
from clippy_cli.training.offset import Offset, measure_offset
from clippy_cli.training.optim import freeze
from clippy_cli.training.order import Part
from clippy_cli.training.run_folder import RunFolder
from clippy_cli.training.sinks import check_sinks, open_sinks
from clippy_cli.training.step_shapes import StepShapes
from clippy_cli.training.terms import extra_terms

OFFSET_IMAGES = 1024
OFFSET_IMAGES_ON_THE_WAY = 256  # where a model is measured or kept before the last step
OFFSET_BATCH = 64
logger = logging.getLogger(__name__)

Evaluate = Callable[[Clippy, int], dict[str, float]]


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
    stopped: Stop = Stop.GO_ON
    best: BestChanged | None = None

    @property
    def finished(self) -> bool:
        return self.offset is not None


def train(
    recipe: Recipe,
    *,
    device: str = "auto",
    resume: bool = False,
    processes: Processes = ALONE,
    inexact: bool = False,
    on_event: OnEvent = lambda event: None,
    should_stop: ShouldStop = lambda: Stop.GO_ON,
    evaluate: Evaluate | None = None,
) -> TrainingResult:
    """Train by ``recipe`` and write the model directory into its run folder.

    Args:
        recipe: what to train, on what, how; see :mod:`clippy_cli.recipe.loading`.
        device: auto, cpu, cuda, cuda:N or mps.
        resume: go on from the newest checkpoint in the run folder, or start where there is none.
        processes: those that train together; the first writes the run folder, each calls this function.
        inexact: let a resumed run have other chunks, another number of processes or of samples.
        on_event: called with every event, in order.
        should_stop: asked after each step; a reason to stop saves a checkpoint and returns an unfinished result.
        evaluate: measures the model every ``evaluate.every`` steps and after the last; gets the steps done.

    Raises:
        ClippyError: a used run folder without ``resume``, missing data or weights, no readable samples, divergence.
    """
    folder = RunFolder(Path(recipe.output))
    if not resume:
        processes.in_first(lambda: folder.refuse_if_used(throwaway=is_smoke(recipe)))
    target = resolve_device(device)
    config = model_config(recipe)
    processes.in_first(lambda: check_sinks(recipe))
    check_launch(recipe, target, config.text.encoder.get("model_type"), processes)
    newest = latest_checkpoint(folder.checkpoints)
    checkpoint = load_checkpoint(newest) if newest else None
    restored = checkpoint is not None
    if checkpoint is not None:
        check_fits(checkpoint, recipe.model_dump(mode="json"), processes.size, folder.root, inexact=inexact)
    model = processes.in_turn(lambda: _build(recipe, config, restored=restored)).to(target)
    check_tower(recipe, model)

    resolutions = recipe.data.resolution or (config.preprocess.resolution,)
    images = processes.in_turn(lambda: open_feed(recipe, recipe.data.source, model, folder.shards, processes))
    validation = None
    if (held_out := recipe.data.validation) is not None:
        validation = processes.in_turn(lambda: open_feed(recipe, held_out, model, folder.shards, processes))
    if checkpoint is not None:
        check_data(checkpoint, len(images), folder.root, inexact=inexact)
    steps_per_epoch = len(images) // recipe.train.batch_size
    if steps_per_epoch == 0:
        raise ClippyError(
            f"The data holds {len(images)} samples and train.batch_size is {recipe.train.batch_size}: not one batch.",
            "Lower train.batch_size.",
        )
    total_steps = recipe.train.steps or (recipe.train.epochs or 0) * steps_per_epoch
    shapes = StepShapes(recipe, resolutions, total_steps)
    for side in shapes.all_resolutions():
        model.image.grid_size(side, side)
    first_step = checkpoint.step if checkpoint else 0
    sinks = open_sinks(recipe, folder.root, first_step) if processes.first else None

    def tell(event: Event) -> None:
        if processes.first:
            folder.append(event)
            if sinks is not None:
                sinks.write(event)
        on_event(event)

    run = _Run(recipe, model, folder, processes, images, evaluate, tell, should_stop)
    hooks = Hooks(tell, should_stop, run.measure, run.settle, run.save_best)
    stopped = Stop.GO_ON
    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        trainer = Trainer(model, recipe, shapes, steps_per_epoch, folder.checkpoints, hooks, processes)
        if newest is not None:
            trainer.restore(newest)
        processes.in_first(lambda: folder.prepare(recipe, trainer.step, finished=trainer.step == total_steps))
        tell(
            Started(
                data=images.source.describe(),
                samples=len(images),
                steps_per_epoch=steps_per_epoch,
                total_steps=total_steps,
                first_step=trainer.step,
                trainable_parameters=sum(parameter.numel() for parameter in trainer.trainable),
                device=str(target),
                processes=processes.size,
                problems=(*images.source.problems, *(validation.source.problems if validation else ())),
            )
        )
        try:
            feed: Feed = images
            held: Feed | None = validation
            if recipe.data.cache_features:
                stored = _cached(folder.cache / "train", recipe, model, images, processes, hooks, flip=recipe.data.flip)
                trainer.terms = extra_terms(model, stored, recipe, processes)
                feed = stored
                if validation is not None:
                    held = _cached(folder.cache / "validation", recipe, model, validation, processes, hooks, flip=False)
            run.feed = feed
            trainer.fit(feed, held)
            run.finish(trainer.step)
            trainer.conclude(held)
        except StopRequested as request:
            stopped = request.reason
        finally:
            if sinks is not None:
                sinks.close()
    if processes.first:
        try:
            draw_loss(folder.records(), folder.plot, recipe.name)
        except OSError as error:
            logger.warning("%s cannot be written (%s)", folder.plot, error.strerror or error)
    best = None
    if trainer.best.step is not None and trainer.best.value is not None and trainer.best.figure is not None:
        best = BestChanged(trainer.best.step, trainer.best.figure, trainer.best.value, folder.best)
    offset = None if stopped else run.offset
    return TrainingResult(
        model.eval(), folder, trainer.step, total_steps, len(images), trainer.broken, offset, stopped, best
    )


def model_config(recipe: Recipe) -> ModelConfig:
    """The architecture with the recipe's changes; ClippyError where they clash. Of several resolutions the largest."""
    fields = load_architecture(recipe.model.architecture).model_dump()
    fields["name"] = recipe.name
    if recipe.model.pooling is not None:
        fields["image"]["pooling"] = recipe.model.pooling
        if recipe.model.pooling.takes_raw_tokens:  # their patches are no unit vectors that could be averaged
            fields["inference"]["affinity_block"] = None
    if recipe.model.centre_patches is not None:
        fields["inference"] |= {"centre_patches": recipe.model.centre_patches, "affinity_block": None}
    if recipe.data.resolution is not None:
        fields["preprocess"]["resolution"] = max(recipe.data.resolution)
    if recipe.train.logit_scale_init is not None:
        fields["logit_scale_init"] = recipe.train.logit_scale_init
    return parse_model_config(fields, where=f"{recipe.model.architecture} with the recipe's changes")


class _Run:
    """What happens to the model between steps and at the end: measuring, and writing model directories."""

    def __init__(
        self,
        recipe: Recipe,
        model: Clippy,
        folder: RunFolder,
        processes: Processes,
        feed: Feed,
        evaluate: Evaluate | None,
        tell: Callable[[Event], None],
        should_stop: ShouldStop,
    ) -> None:
        self.tell, self.should_stop = tell, should_stop
        self.recipe, self.model, self.folder, self.processes = recipe, model, folder, processes
        self.feed, self.evaluate = feed, evaluate
        self.offset: Offset | None = None
        self._measured_at: int | None = None  # the step that the offset is of

    def measure(self, step: int) -> dict[str, float]:
        """Figures of the caller's evaluation, on the model as it would be written now."""
        if self.evaluate is None:
            return {}
        self.settle(step)
        return self.evaluate(self.model, step)

    def settle(self, step: int) -> None:
        """Measure the offset on some images, unless this step's is known."""
        self._measure_offset(step, OFFSET_IMAGES_ON_THE_WAY)

    def save_best(self, step: int) -> Path:
        """Write ``best/``."""
        return self._write(self.folder.best, step)

    def finish(self, step: int) -> None:
        """Measure the offset of patches over training images, and write the model directory."""
        self._measured_at = None  # on the way fewer images are enough
        self._measure_offset(step, OFFSET_IMAGES)
        self.processes.in_first(lambda: self._write(self.folder.model, step))

    def _measure_offset(self, step: int, images: int) -> None:
        if self._measured_at == step:
            return
        self.model.eval()
        part = Part(self.recipe.train.batch_size, self.processes.rank, self.processes.size)
        mine = self.feed.spread(images, part)
        with torch.compiler.set_stance("force_eager"):  # shapes that training never has again
            self.offset = measure_offset(
                self.model,
                self.feed.plain(mine, OFFSET_BATCH),
                self.processes,
                should_stop=self.should_stop,
                on_images=lambda done: self.tell(OffsetProgress(done, len(mine))),
            )
        self.model.patch_mean.copy_(self.offset.patch_mean)
        self._measured_at = step

    def _write(self, target: Path, step: int) -> Path:
        provenance = _provenance(self.recipe, self.offset, step, len(self.feed))
        self.model.config = self.model.config.model_copy(update={"training": provenance})
        save_model(self.model, target)
        return target


def _build(recipe: Recipe, config: ModelConfig, *, restored: bool) -> Clippy:
    """The model at the start; where a checkpoint will be restored, no weights are looked for."""
    image, text = recipe.model.image, recipe.model.text
    tokenizer = text.tokenizer
    if restored and tokenizer is None and text.init not in ("random", "pretrained"):
        tokenizer = text.init
    model = build_model(
        config,
        image_init="random" if restored else image.init,
        text_init="random" if restored else text.init,
        tokenizer=tokenizer,
        seed=recipe.seed,
    )
    freeze(model, recipe.model, recipe.train)
    return model


def _cached(
    place: Path,
    recipe: Recipe,
    model: Clippy,
    images: ImageFeed,
    processes: Processes,
    hooks: Hooks,
    *,
    flip: bool,
) -> CachedFeed:
    """The feed over stored features, which the first process computes where they are not there yet."""

    def build() -> Stop:
        try:
            build_cache(place, model, images, recipe, hooks.tell, hooks.should_stop, flip=flip)
        except StopRequested as request:
            return request.reason
        return Stop.GO_ON

    stop = processes.in_first(build)
    if stop:
        raise StopRequested(stop)
    return CachedFeed(place, recipe, model.text.tokenize, num_prefix=model.image.num_prefix_tokens, flip=flip)


def _provenance(recipe: Recipe, offset: Offset | None, step: int, samples: int) -> dict[str, Any]:
    return {
        "clippy": clippy_cli.__version__,
        "recipe": recipe.name,
        "architecture": Path(recipe.model.architecture).stem,
        "image_init": Path(recipe.model.image.init).name,
        "text_init": Path(recipe.model.text.init).name,
        "data": recipe.data.source.kind,
        "samples": samples,
        "steps": step,
        "batch_size": recipe.train.batch_size,
        "seed": recipe.seed,
        **({} if offset is None else {"pooled_patch_cosine": round(offset.pooled_patch_cosine, 4)}),
    }
