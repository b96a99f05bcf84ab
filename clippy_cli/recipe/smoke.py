"""A recipe in small: every code path that it selects, within seconds on two cores, without data, network or weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from clippy_cli.recipe.schema import Recipe
from clippy_cli.regular_files import is_file, read_text

STEPS = 6
BATCH = 16
CHUNK = 8
EVERY = 3
SCENES = 64
SIDES = (32, 64)

_ARCHITECTURES = Path(__file__).parents[1] / "model" / "architectures"


SUFFIX = "-smoke"


def is_smoke(recipe: Recipe) -> bool:
    """Whether this is the smoke form of a recipe, whose run folder may be written over; a name alone makes none."""
    named = recipe.name.endswith(SUFFIX) and recipe.output.rstrip("/").endswith(SUFFIX)
    return named and (recipe.train.steps, recipe.train.batch_size) == (STEPS, BATCH)


def smoke_recipe(recipe: Recipe) -> Recipe:
    """The same run with a tiny model on generated scenes: six steps of 16 images, its largest side 64 pixels, else 32.

    Pooling, freezing, loss, optimiser, precision, drop rates, gradient caching, stored features, a validation source, a
    final part and an evaluation stay where the recipe has them. Left out are ``train.compile`` (compiling takes
    minutes), fp16 (bf16 instead, which a CPU has), named sets (scenes instead), TensorBoard, W&B and ``train.classes``
    (random weights have no classifier). An architecture that cannot be read stays as it is, for the run to say so.
    """
    fields = recipe.model_dump()
    model, data, train = fields["model"], fields["data"], fields["train"]
    architecture = _architecture(recipe.model.architecture)
    if architecture is not None:
        model["architecture"] = architecture.small
        model["pooling"] = recipe.model.pooling or architecture.pooling
    model["image"]["init"] = model["text"]["init"] = "random"
    model["text"]["tokenizer"] = None

    resolutions = recipe.data.resolution or (architecture.resolution if architecture else SIDES[-1],)
    largest = max(*resolutions, recipe.train.final.resolution or 0)
    data["source"] = {"kind": "scenes", "count": SCENES}
    data["resolution"] = tuple(dict.fromkeys(_side(side, largest) for side in resolutions))
    data["workers"] = min(1, recipe.data.workers)
    if recipe.data.validation is not None:
        data["validation"] = {"kind": "scenes", "count": SCENES // 2, "seed": 1}
        train["validate_every"] = EVERY

    train |= {"epochs": None, "steps": STEPS, "batch_size": BATCH, "warmup_steps": min(2, recipe.train.warmup_steps)}
    train |= {"log_every": 1, "checkpoint_every": EVERY, "compile": False}
    train["precision"] = "bf16" if recipe.train.precision == "fp16" else recipe.train.precision
    train["words"]["min_images"] = min(recipe.train.words.min_images, BATCH)  # the pass has few images
    train["classes"]["weight"] = 0.0  # random weights have no classifier
    if recipe.train.self_distillation.resolution is not None:
        train["self_distillation"]["resolution"] = SIDES[0]
    train["chunk_size"] = CHUNK if recipe.train.chunk_size else None
    final = train["final"]
    final["share"] = max(recipe.train.final.share, 1 / STEPS) if recipe.train.final.share else 0.0
    final["chunk_size"] = CHUNK if recipe.train.final.chunk_size else None
    if recipe.train.final.resolution is not None:
        final["resolution"] = _side(recipe.train.final.resolution, largest)

    fields["evaluate"] = {}
    if recipe.evaluate.sets or recipe.evaluate.scenes:
        fields["evaluate"] = {
            "scenes": CHUNK,
            "every": EVERY if recipe.evaluate.every else None,
            "best": "scenes.miou" if recipe.evaluate.best else None,
        }
    fields["log"] = {}
    fields |= {"name": f"{recipe.name}{SUFFIX}", "output": f"{recipe.output.rstrip('/')}{SUFFIX}"}
    return Recipe.model_validate(fields)


def _side(side: int, largest: int) -> int:
    return SIDES[-1] if side == largest else SIDES[0]


class _Architecture(NamedTuple):
    trunk: str
    pooling: str
    resolution: int
    head_blocks: int

    @property
    def small(self) -> str:
        """The registered architecture that takes the same code path."""
        if "net" in self.trunk:  # as in efficientnet; no vision transformer has it
            return "align-nano"
        return "dinov2-text-nano" if self.head_blocks else "clippy-nano"


def _architecture(name: str) -> _Architecture | None:
    """What a smoke run depends on of a registered architecture, or of a file of the user's own."""
    registered = _ARCHITECTURES / f"{name}.yaml"
    try:
        fields = yaml.safe_load(read_text(registered if is_file(registered) else Path(name)))
        image = fields["image"]
        resolution = int(fields["preprocess"]["resolution"])
        return _Architecture(str(image["trunk"]), image["pooling"], resolution, int(image.get("head_blocks", 0)))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError):
        return None
