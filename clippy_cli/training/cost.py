"""What a recipe would cost: steps, arithmetic, GPU-hours and disk, computed without a step of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import PEAK_FLOPS
from clippy_cli.model.flops import forward_flops, planned_text_length
from clippy_cli.model.registry import load_architecture
from clippy_cli.recipe.data import MixtureRecipe, ScenesRecipe, ShardsRecipe, SourceRecipe
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.checks import check_tower
from clippy_cli.training.compute import Compute
from clippy_cli.training.feeds import open_local
from clippy_cli.training.optim import freeze
from clippy_cli.training.step_shapes import StepShape, StepShapes
from clippy_cli.training.terms.self_distillation import Head, student_tower

UTILISATION = 0.4
CARD = "H100"
_GPUS = (1, 8, 32)
_FP32 = 4


@dataclass(frozen=True)
class Phase:
    """Steps of one resolution and drop rate.

    Attributes:
        steps: an expected value where each step draws its resolution.
        kept: patch tokens that go through the trunk, of ``patches``.
        pair_flops: of one image and one caption, forward and backward.
    """

    resolution: int
    drop_rate: float
    steps: float
    kept: int
    patches: int
    pair_flops: float


@dataclass(frozen=True)
class Cost:
    """The cost of one run; FLOPs are the model's own (see :func:`clippy_cli.model.flops.step_flops`).

    Attributes:
        stored_flops, stored_bytes: of the one pass through frozen towers whose features are stored, and of these.
        joint: width D of the joint space.
        parameters, learning: of the model, and those that the optimiser moves.
        term_bytes: what loss terms add to a checkpoint: a teacher, heads and their running means.
        peak, utilisation: FLOP/s of the card by its vendor, and the share of it that is taken to be reached.
    """

    samples: int
    steps: int
    batch_size: int
    phases: tuple[Phase, ...]
    stored_flops: float
    stored_bytes: int
    joint: int
    parameters: int
    learning: int
    term_bytes: int
    kept_checkpoints: int
    precision: str
    peak: float
    utilisation: float

    @property
    def images(self) -> int:
        """Images that the run trains on, repeats included."""
        return self.steps * self.batch_size

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.stored_flops + sum(phase.steps * self.batch_size * phase.pair_flops for phase in self.phases)

    @property
    def gpu_hours(self) -> float:
        """On one card, evaluation and waiting for data left out."""
        return self.flops / (self.peak * self.utilisation) / 3600

    def images_per_second(self, gpus: int) -> float:
        """Images that have to be read for the arithmetic never to wait."""
        return self.images * gpus / (self.gpu_hours * 3600)

    @property
    def model_bytes(self) -> int:
        """Size of the finished model's weights."""
        return _FP32 * self.parameters

    @property
    def checkpoint_bytes(self) -> int:
        """Size of one checkpoint: weights, two running means for each that learns, and the terms' state."""
        return self.model_bytes + 2 * _FP32 * self.learning + self.term_bytes

    @property
    def disk_bytes(self) -> int:
        """Most that the run folder holds: checkpoints and one being written, best and finished model, features."""
        return (self.kept_checkpoints + 1) * self.checkpoint_bytes + 2 * self.model_bytes + self.stored_bytes

    @property
    def gathered_bytes(self) -> int:
        """Embeddings of the whole batch, images and captions, which every process holds for the loss."""
        return 2 * self.batch_size * self.joint * _FP32

    def logit_bytes(self, gpus: int) -> int:
        """One matrix of logits in a process with ``train.local_loss``."""
        return self.batch_size * (self.batch_size // gpus) * _FP32


def estimate_cost(recipe: Recipe, *, samples: int | None = None, utilisation: float = UTILISATION) -> Cost:
    """What ``recipe`` costs. The model is built with random weights: no weights and no tokenizer are needed.

    Args:
        recipe: what would be trained.
        samples: pairs of the data; None takes ``data.source.samples``, or counts local data.
        utilisation: share of the H100's peak that is taken to be reached.

    Raises:
        ClippyError: data of unknown size, less than one batch, a resolution or drop rate that the trunk does not take.
    """
    train, source = recipe.train, recipe.data.source
    samples = samples or _count(source)
    steps_per_epoch = samples // train.batch_size
    if steps_per_epoch == 0:
        raise ClippyError(
            f"The data holds {samples} samples and train.batch_size is {train.batch_size}: not one batch.",
            "Lower train.batch_size.",
        )
    steps = train.steps or (train.epochs or 0) * steps_per_epoch
    config = load_architecture(recipe.model.architecture)
    model = Clippy(config)
    check_tower(recipe, model)
    freeze(model, recipe.model, train)
    compute = Compute(model, recipe)
    resolutions = recipe.data.resolution or (config.preprocess.resolution,)
    phases = []
    for shape, expected in _shapes(StepShapes(recipe, resolutions, steps)):
        kept, flops = compute.count_pair(shape)
        h, w = model.image.grid_size(shape.resolution, shape.resolution)
        phases.append(Phase(shape.resolution, shape.drop_rate, expected, kept, h * w, flops))
    stored_flops, stored_bytes = _stored(model, recipe, resolutions[0]) if recipe.data.cache_features else (0.0, 0)
    return Cost(
        samples=samples,
        steps=steps,
        batch_size=train.batch_size,
        phases=tuple(phases),
        stored_flops=samples * stored_flops,
        stored_bytes=samples * stored_bytes,
        joint=config.embed_dim,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        learning=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        term_bytes=_term_bytes(model, recipe),
        kept_checkpoints=train.keep_checkpoints,
        precision=train.precision,
        peak=PEAK_FLOPS[CARD][train.precision],
        utilisation=utilisation,
    )


def cost_table(cost: Cost) -> list[tuple[str, str]]:
    """The cost as (name, value) rows for people."""
    rows = [
        ("data", f"{cost.samples:,} pairs, seen {cost.images / cost.samples:.1f} times"),
        ("steps", f"{cost.steps:,} of {cost.batch_size:,} pairs: {cost.images:,} images"),
        ("model", f"{cost.parameters / 1e6:.1f} M parameters, of which {cost.learning / 1e6:.1f} M learn"),
    ]
    for phase in cost.phases:
        tokens = f"{phase.kept} of {phase.patches} patch tokens an image"
        rows.append(
            (f"at {phase.resolution} pixels", f"{phase.steps:,.0f} steps, {tokens}, {_flop(phase.pair_flops)} a pair")
        )
    if cost.stored_flops:
        rows.append(("stored features", f"{_flop(cost.stored_flops)}, once; what learns on them is not counted"))
    share = f"{cost.utilisation:.0%} of {cost.peak / 1e12:.0f} TFLOP/s ({cost.precision})"
    rows += [
        ("arithmetic", f"{_flop(cost.flops)}, forward and backward"),
        (f"{CARD} hours", f"{cost.gpu_hours:.3g} at {share}, evaluation and waiting for data left out"),
    ]
    for gpus in _GPUS:
        if cost.batch_size % gpus == 0 and not cost.stored_flops:
            rate = f"{cost.images_per_second(gpus):,.0f} images/s"
            logits = f"logits of {_size(cost.logit_bytes(gpus))} a process"
            name = "on 1 GPU" if gpus == 1 else f"on {gpus} GPUs"
            rows.append((name, f"{_duration(cost.gpu_hours / gpus)}, if {rate} can be read; {logits}"))
    rows += [
        ("embeddings gathered", f"{_size(cost.gathered_bytes)} a process"),
        ("checkpoint", f"{_size(cost.checkpoint_bytes)}; the run folder grows to {_size(cost.disk_bytes)}"),
    ]
    return rows


def _count(source: SourceRecipe) -> int:
    """Pairs of a source: as the recipe states them, or as they are found on this machine."""
    match source:
        case ScenesRecipe():
            return source.count
        case MixtureRecipe():
            return sum(_count(part.source) * part.repeat for part in source.parts)
        case ShardsRecipe(samples=int(samples)):
            return samples
    try:
        return len(open_local(source, 1))
    except ClippyError as error:
        state = "State it: --set data.source.samples=NUMBER" if isinstance(source, ShardsRecipe) else error.hint
        raise ClippyError(
            f"The cost depends on how many pairs the data holds, and it cannot be counted here: {error.message}", state
        ) from error


def _shapes(shapes: StepShapes) -> Iterator[tuple[StepShape, float]]:
    """Each shape that steps may have, with the steps expected to have it."""
    train, first_final = shapes.recipe.train, shapes.first_final
    drawn = 1 / len(shapes.resolutions)
    if first_final:
        for resolution in shapes.resolutions:
            yield StepShape(resolution, train.drop_rate, train.chunk_size), first_final * drawn
    if first_final < shapes.total_steps:
        count, final = shapes.total_steps - first_final, train.final
        sides = shapes.resolutions if final.resolution is None else (final.resolution,)
        for resolution in sides:
            yield StepShape(resolution, final.drop_rate, final.chunk_size), count / len(sides)


def _stored(model: Clippy, recipe: Recipe, resolution: int) -> tuple[float, int]:
    """FLOPs and float16 bytes of one pair whose features are stored; mirror images are stored too."""
    forward = forward_flops(model, resolution, None, planned_text_length(model))
    views = 2 if recipe.data.flip else 1
    h, w = model.image.grid_size(resolution, resolution)
    tokens = model.image.num_prefix_tokens + h * w
    text = forward.text if recipe.model.text.freeze != "none" else 0.0
    return views * forward.image + text, views * tokens * model.image.feature_dim * 2


def _term_bytes(model: Clippy, recipe: Recipe) -> int:
    """Of self-distillation: the teacher's trunk, student's and teacher's head, and two running means of the first."""
    wanted = recipe.train.self_distillation
    if not wanted.weight:
        return 0
    with torch.device("meta"):
        head = Head(student_tower(model.image).trunk.embed_dim, wanted)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (model.image.trunk, head)]
    return _FP32 * (sizes[0] + 4 * sizes[1])


def _flop(value: float) -> str:
    return f"{value / 1e9:,.3g} GFLOP" if value < 1e12 else f"{value:.3g} FLOP"


def _size(value: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if value >= unit:
            return f"{value / unit:,.1f} {name}"
    return f"{value / 1e3:,.1f} kB"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} minutes" if hours > 1 / 60 else "less than a minute"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
