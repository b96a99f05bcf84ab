"""The fields of a recipe: what each means, what it allows, what it is when left out."""

from __future__ import annotations

import difflib
import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from clippy_cli.checked_yaml import conflict


def expand_path(text: str) -> str:
    """Replace ``${NAME}`` by the environment variable of that name and a leading ``~`` by the home folder."""

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise PydanticCustomError(
                "environment", "the environment variable {name} is not set; export {name}=FOLDER first", {"name": name}
            )
        return os.environ[name]

    return os.path.expanduser(re.sub(r"\$\{(\w+)\}", variable, text))  # noqa: PTH111 (URLs must stay as they are)


def _init(text: str) -> str:
    if text in ("random", "pretrained"):
        return text
    if not re.search(r"[./\\~$]", text) and difflib.get_close_matches(text, ["random", "pretrained"]):
        raise PydanticCustomError("init", "must be random, pretrained, or a local file or folder", {})
    return expand_path(text)


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


LocalPath = Annotated[str, Field(min_length=1), AfterValidator(expand_path)]
Init = Annotated[str, Field(min_length=1), AfterValidator(_init)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRecipe(Section):
    """How the image tower starts and learns."""

    init: Annotated[Init, Field(description="random, pretrained (timm weights) or a local .safetensors file")] = (
        "random"
    )
    freeze: Annotated[
        Literal["none", "trunk", "all"], Field(description="what keeps its weights; all includes the projection")
    ] = "none"
    lr: Annotated[float | None, Field(gt=0, description="peak learning rate of the trunk; null takes train.lr")] = None


class TextRecipe(Section):
    """How the text tower starts and learns."""

    init: Annotated[Init, Field(description="random, pretrained (Hugging Face weights) or a local folder")] = "random"
    freeze: Annotated[
        Literal["none", "encoder", "all"], Field(description="what keeps its weights; all includes the projection")
    ] = "none"
    lr: Annotated[float | None, Field(gt=0, description="peak learning rate of the encoder; null takes train.lr")] = (
        None
    )
    tokenizer: Annotated[
        LocalPath | None, Field(description="folder or Hugging Face name; null takes it from where init points")
    ] = None


class ModelRecipe(Section):
    """Which model is trained, and from what."""

    architecture: Annotated[
        LocalPath, Field(examples=["clippy-nano"], description="a registered architecture, or a YAML file of one")
    ]
    pooling: Annotated[
        Literal["max", "avg", "cls", "lse"] | None,
        Field(description="how image tokens become one score; null takes the architecture's"),
    ] = None
    centre_patches: Annotated[
        bool | None,
        Field(description="whether inference subtracts the mean patch embedding; null takes the architecture's"),
    ] = None
    image: ImageRecipe = ImageRecipe()
    text: TextRecipe = TextRecipe()


class ShardsRecipe(Section):
    """WebDataset shards: image and caption members that share a key."""

    kind: Annotated[Literal["shards"], Field(description="tar files of images and captions")]
    paths: Annotated[
        tuple[LocalPath, ...],
        BeforeValidator(_one_or_many),
        Field(
            min_length=1,
            examples=[["train-{0000..0099}.tar"]],
            description="tar files; brace ranges such as train-{0000..0099}.tar and globs are expanded",
        ),
    ]


class TableRecipe(Section):
    """A CSV or TSV file with one image path and one caption a row."""

    kind: Annotated[Literal["table"], Field(description="a CSV or TSV file")]
    path: Annotated[LocalPath, Field(examples=["captions.csv"], description="the .csv or .tsv file")]
    image_column: Annotated[str | None, Field(description="header of the image paths; null finds it")] = None
    caption_column: Annotated[str | None, Field(description="header of the captions; null finds it")] = None
    root: Annotated[LocalPath | None, Field(description="folder of relative image paths; null: the file's own")] = None


class ScenesRecipe(Section):
    """Captioned scenes drawn on the fly; no data needed."""

    kind: Annotated[Literal["scenes"], Field(description="generated scenes")]
    count: Annotated[Positive, Field(examples=[20000], description="number of scenes")]
    seed: Annotated[int, Field(ge=0, description="seed of the scenes")] = 0


SourceRecipe = Annotated[
    ShardsRecipe | TableRecipe | ScenesRecipe,
    Field(discriminator="kind", description="where captioned images come from: kind shards, table or scenes"),
]


class DataRecipe(Section):
    """What the model sees."""

    source: SourceRecipe
    validation: Annotated[
        SourceRecipe | None, Field(description="a second source whose loss is logged; null for none")
    ] = None
    resolution: Annotated[
        Positive | None, Field(description="side of the training image in pixels; null takes the architecture's")
    ] = None
    crop_scale: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Field(description="range of the random crop's share of the image area; [1, 1] is a plain centre crop"),
    ] = (1.0, 1.0)
    flip: Annotated[bool, Field(description="mirror half of the images, at random")] = False
    workers: Annotated[int, Field(ge=0, le=256, description="processes that read images; 0 reads in the main one")] = 2
    cache_features: Annotated[
        bool, Field(description="run the frozen trunk once and train on its stored tokens; needs model.image.freeze")
    ] = False

    @model_validator(mode="after")
    def _fits(self) -> DataRecipe:
        low, high = self.crop_scale
        if low > high:
            raise conflict(f"the range [{low}, {high}] is empty; write the smaller share first", "data.crop_scale")
        if self.cache_features and self.crop_scale != (1.0, 1.0):
            raise conflict(
                "cached features cannot follow random crops; set data.crop_scale: [1, 1] or data.cache_features: false",
                "data.cache_features",
                "data.crop_scale",
            )
        return self


class TrainRecipe(Section):
    """How long, how fast, how precisely."""

    epochs: Annotated[Positive | None, Field(description="passes over the data; exactly one of epochs and steps")] = (
        None
    )
    steps: Annotated[Positive | None, Field(description="optimiser steps; exactly one of epochs and steps")] = None
    batch_size: Annotated[
        int, Field(ge=2, examples=[256], description="images a step; the other captions of a batch are the negatives")
    ]
    optimizer: Annotated[Literal["adamw", "lamb"], Field(description="update rule")] = "adamw"
    lr: Annotated[float, Field(gt=0, examples=[1e-3], description="peak learning rate")]
    logit_scale_lr: Annotated[
        float | None,
        Field(ge=0, description="peak learning rate of the log logit scale; 0 keeps it fixed, null takes train.lr"),
    ] = None
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
        Field(description="decay of the gradient's running mean and of its square's"),
    ] = (0.9, 0.98)
    weight_decay: Annotated[
        float, Field(ge=0, description="decay of weight matrices; biases, norms, tables have none")
    ] = 0.2
    warmup_steps: Annotated[int, Field(ge=0, description="steps of linear warm-up")] = 0
    schedule: Annotated[Literal["cosine", "constant"], Field(description="learning rate after the warm-up")] = "cosine"
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Field(description="arithmetic of the towers; fp16 needs a CUDA device")
    ] = "fp32"
    grad_clip: Annotated[float | None, Field(gt=0, description="largest gradient norm; null for no limit")] = 1.0
    drop_rate: Annotated[float, Field(ge=0, lt=1, description="share of patch tokens dropped from each image")] = 0.0
    max_logit_scale: Annotated[float, Field(ge=1, description="upper bound of the learned logit scale")] = 100.0
    log_every: Annotated[Positive, Field(description="steps between log lines")] = 10
    validate_every: Annotated[
        Positive | None, Field(description="steps between validation losses; null for once an epoch")
    ] = None
    checkpoint_every: Annotated[
        Positive | None, Field(description="steps between checkpoints; null for once an epoch")
    ] = None
    keep_checkpoints: Annotated[Positive, Field(description="number of checkpoints left on disk")] = 2

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        if (self.epochs is None) == (self.steps is None):
            raise conflict("set exactly one of train.epochs and train.steps", "train.epochs", "train.steps")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise conflict(
                f"{self.warmup_steps} steps of warm-up leave nothing of {self.steps} steps",
                "train.warmup_steps",
                "train.steps",
            )
        return self


class EvaluateRecipe(Section):
    """What is measured once training is over."""

    scenes: Annotated[int, Field(ge=0, description="held-out generated scenes to segment; 0 for none")] = 0


class Recipe(Section):
    """One training run, from data to model directory."""

    name: Annotated[
        str,
        Field(pattern=r"^[\w.\-]+$", examples=["my-model"], description="name of the model: letters, digits, . _ -"),
    ]
    output: Annotated[
        LocalPath, Field(examples=["runs/my-model"], description="run folder: recipe, log, checkpoints, model")
    ]
    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="seed of weights, order, captions, crops, dropped tokens")
    ] = 0
    model: ModelRecipe
    data: DataRecipe
    train: TrainRecipe
    evaluate: EvaluateRecipe = EvaluateRecipe()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.data.cache_features and self.model.image.freeze == "none":
            raise conflict(
                "stored features need a trunk that does not learn; set model.image.freeze: trunk",
                "data.cache_features",
                "model.image.freeze",
            )
        return self
