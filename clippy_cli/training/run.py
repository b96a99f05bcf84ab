"""One training run from recipe to model directory."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from clippy_cli.data.identity import identify, joined
from clippy_cli.data.streams import StreamSource
from clippy_cli.errors import ClippyError
from clippy_cli.locks import hold_folder
from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture, parse_model_config
from clippy_cli.notices import Notices
from clippy_cli.processes import ALONE, Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.recipe.smoke import is_smoke
from clippy_cli.training.best import Best
from clippy_cli.training.checkpoint import (
    RunState,
    check_data,
    check_fits,
    check_identity,
    latest_checkpoint,
    load_checkpoint,
    load_optimizer,
    load_weights,
    restoring,
)
from clippy_cli.training.checks import check_launch, check_tower
from clippy_cli.training.events import (
    BestChanged,
    Event,
    OnEvent,
    ShouldStop,
    Started,
    Stop,
    StopRequested,
)
from clippy_cli.training.feature_cache import CachedFeed, build_cache
from clippy_cli.training.feeds import check_same_data, open_feed
from clippy_cli.training.loader import Feed, ImageFeed
from clippy_cli.training.model_writer import ModelWriter
from clippy_cli.training.offset import Offset
from clippy_cli.training.optim import freeze, parameter_groups
from clippy_cli.training.run_folder import RunFolder, draw_loss
from clippy_cli.training.sinks import check_sinks, open_sinks
from clippy_cli.training.step_shapes import StepShapes
from clippy_cli.training.terms import TermSetup, build_terms
from clippy_cli.training.train_step import TrainStep
from clippy_cli.training.trainer import Evaluate, Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        model: as it is now, in evaluation mode.
        folder: the paths of what was written, ``folder.model`` among them.
        step, total_steps: finished and wanted steps.
        samples: in the training data.
        broken: sample number -> why it could not be read.
        notices: what of the data was not used as it stands, in all processes.
        offset: of the model's patches; None where the caller stopped the run before its end.
        stopped: why the caller stopped it.
        best: the best step by the recipe's figure; None where none was measured.
    """

    model: Clippy
    folder: RunFolder
    step: int
    total_steps: int
    samples: int
    broken: dict[int, str]
    notices: Notices
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
    strict: bool = False,
    on_event: OnEvent = lambda event: None,
    should_stop: ShouldStop = lambda: Stop.GO_ON,
    evaluate: Evaluate | None = None,
) -> TrainingResult:
    """Train by ``recipe`` and write the model directory into its run folder. Nothing is printed.

    Args:
        recipe: what to train, on what, how; from :func:`clippy_cli.recipe.loading.load_recipe`, which takes overrides.
        device: auto, cpu, cuda, cuda:N or mps.
        resume: go on from the newest checkpoint in the run folder, or start where there is none.
        processes: those that train together; the first writes the run folder, each calls this function.
        inexact: let a resumed run have other chunks, another number of processes or of samples, or changed data.
        strict: refuse data of which something would be skipped, or used under an assumption.
        on_event: called with every event, in order (see :mod:`clippy_cli.training.events`).
        should_stop: called after each step; a reason to stop saves a checkpoint and returns an unfinished result.
        evaluate: measures the model every ``evaluate.every`` steps and after the last; gets the steps done. For the
            sets that the recipe names: :func:`clippy_cli.evaluation.in_training.periodic_evaluation`.

    Raises:
        ClippyError: a used run folder without ``resume``, or one that another process trains in; missing data or
            weights, no readable samples, divergence.
    """
    with ExitStack() as stack:
        processes.in_first(lambda: stack.enter_context(hold_folder(Path(recipe.output), "clippy train")))
        return _train(
            recipe,
            RunFolder(Path(recipe.output)),
            resolve_device(device),
            resume=resume,
            processes=processes,
            inexact=inexact,
            strict=strict,
            on_event=on_event,
            should_stop=should_stop,
            evaluate=evaluate,
        )


def _train(
    recipe: Recipe,
    folder: RunFolder,
    target: torch.device,
    *,
    resume: bool,
    processes: Processes,
    inexact: bool,
    strict: bool,
    on_event: OnEvent,
    should_stop: ShouldStop,
    evaluate: Evaluate | None,
) -> TrainingResult:
    """:func:`train` in a folder that is this run's alone."""
    config = model_config(recipe)
    if not resume:
        processes.in_first(lambda: folder.refuse_if_used(throwaway=is_smoke(recipe)))
    processes.in_first(lambda: check_sinks(recipe))
    check_launch(recipe, target, config.text.encoder.get("model_type"), processes)
    newest = latest_checkpoint(folder.checkpoints)
    checkpoint = load_checkpoint(newest) if newest else None
    state = RunState(Best(recipe))
    if checkpoint is not None and newest is not None:
        check_fits(checkpoint, recipe, processes.size, folder.root, inexact=inexact)
        with restoring(newest):
            state = RunState.resumed(checkpoint, newest, state.best, processes.rank)
    model = processes.in_turn(lambda: _build(recipe, config, newest)).to(target)
    check_tower(recipe, model)
    parameter_groups(model, recipe.model, recipe.train)  # an error where nothing is left to train

    images = processes.in_turn(lambda: open_feed(recipe, recipe.data.source, model, folder.shards, processes))
    validation = None
    if (held_out := recipe.data.validation) is not None:
        validation = processes.in_turn(lambda: open_feed(recipe, held_out, model, folder.shards, processes))
    for one in (images, validation):
        check_same_data(one, processes)
    notices = Notices(notice for feed in (images, validation) if feed for notice in feed.source.notices)
    if strict:
        notices.refuse("The training data")

    earlier = None if checkpoint is None or checkpoint.data is None else checkpoint.data.clone()

    def identify_data() -> None:
        identity = joined([identify(feed.source) for feed in (images, validation) if feed])
        for change in check_identity(earlier, identity, folder.root, inexact=inexact):
            notices.assumed("change", "the data is not as it was before the run was resumed", change)
        state.data = torch.from_numpy(identity.hashes)

    processes.in_first(identify_data)
    if checkpoint is not None:
        check_data(checkpoint, len(images), folder.root, inexact=inexact)
    del checkpoint
    shapes, steps_per_epoch = _steps(recipe, model, len(images))
    total_steps = shapes.total_steps
    sinks = open_sinks(recipe, folder.root, state.step) if processes.first else None

    def emit(event: Event) -> None:
        if processes.first:
            folder.append(event)
            if sinks is not None:
                sinks.write(event)
        on_event(event)

    processes.in_first(lambda: folder.prepare(recipe, state.step, finished=state.step == total_steps))
    emit(
        Started(
            data=images.source.describe(),
            samples=len(images),
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
            first_step=state.step,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            device=str(target),
            processes=processes.size,
            notices=tuple(notices),
        )
    )
    offset, stopped = None, Stop.GO_ON
    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        try:
            feed: Feed = images
            held: Feed | None = validation
            if recipe.data.cache_features:
                cached = partial(_cached, recipe, model, processes, emit, should_stop)
                feed = cached(images, folder.cache / "train", flip=recipe.data.flip)
                held = cached(validation, folder.cache / "validation", flip=False) if validation else None
            terms = build_terms(TermSetup(model, recipe, feed, total_steps, processes, emit, should_stop))
            update = TrainStep(model, recipe, total_steps, terms, processes)
            if newest is not None:
                with restoring(newest):
                    update.restore(load_checkpoint(newest))
                    update.optimizer.load_state_dict(load_optimizer(newest))
            writer = ModelWriter(model, recipe, feed, processes, emit, should_stop)
            Trainer(
                update,
                state,
                shapes,
                steps_per_epoch,
                feed,
                held,
                folder,
                writer,
                emit,
                should_stop,
                evaluate,
                processes,
            ).fit()
            offset = writer.offset
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
    if isinstance(images.source, StreamSource):  # each process has seen shards of its own
        found = processes.gather(list(images.source.notices))
        notices = Notices(notice for of_one in found for notice in of_one)
        notices.update(validation.source.notices if validation else ())
    best = None
    if state.best.step is not None and state.best.value is not None and state.best.figure is not None:
        best = BestChanged(state.best.step, state.best.figure, state.best.value, folder.best)
    return TrainingResult(
        model.eval(), folder, state.step, total_steps, len(images), state.broken, notices, offset, stopped, best
    )


def _steps(recipe: Recipe, model: Clippy, samples: int) -> tuple[StepShapes, int]:
    """The shape of every step, and the steps of an epoch; ClippyError for less than a batch, or sides with no grid."""
    steps_per_epoch = samples // recipe.train.batch_size
    if steps_per_epoch == 0:
        raise ClippyError(
            f"The data holds {samples} samples and train.batch_size is {recipe.train.batch_size}: not one batch.",
            "Lower train.batch_size.",
        )
    total_steps = recipe.train.steps or (recipe.train.epochs or 0) * steps_per_epoch
    resolutions = recipe.data.resolution or (model.preprocess.resolution,)
    shapes = StepShapes(recipe, resolutions, total_steps)
    for side in shapes.all_resolutions():
        model.image.grid_size(side, side)
    return shapes, steps_per_epoch


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


def _build(recipe: Recipe, config: ModelConfig, newest: Path | None) -> Clippy:
    """The model at the start, or as the checkpoint ``newest`` has it; then no other weights are looked for."""
    restored = newest is not None
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
    if newest is not None:
        with restoring(newest):
            model.load_state_dict(load_weights(newest))
    freeze(model, recipe.model, recipe.train)
    return model


def _cached(
    recipe: Recipe,
    model: Clippy,
    processes: Processes,
    emit: OnEvent,
    should_stop: ShouldStop,
    images: ImageFeed,
    place: Path,
    *,
    flip: bool,
) -> CachedFeed:
    """The feed over stored features, which the first process computes where they are not there yet."""

    def build() -> Stop:
        try:
            build_cache(place, model, images, recipe, emit, should_stop, flip=flip)
        except StopRequested as request:
            return request.reason
        return Stop.GO_ON

    if stop := processes.in_first(build):
        raise StopRequested(stop)
    return CachedFeed(place, recipe, model.text.tokenize, num_prefix=model.image.num_prefix_tokens, flip=flip)
