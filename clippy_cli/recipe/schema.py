"""The fields of a recipe: what each means, what it allows, what it is when left out."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from clippy_cli.checked_yaml import conflict
from clippy_cli.model.choices import Pooling
from clippy_cli.recipe.data import (
    DataRecipe,
    LocalPath,
    Positive,
    Section,
    ShardsRecipe,
    expand_path,
    one_or_many,
)
from clippy_cli.recipe.terms import ClassesRecipe, SelfDistillationRecipe, WordsRecipe


def _init(text: str) -> str:
    if text in ("random", "pretrained"):
        return text
    if not re.search(r"[./\\~$]", text) and difflib.get_close_matches(text, ["random", "pretrained"]):
        raise PydanticCustomError("init", "must be random, pretrained, or a local file or folder", {})
    return expand_path(text)


Init = Annotated[str, Field(min_length=1), AfterValidator(_init)]


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
        Pooling | None,
        Field(description="how image tokens become one score; null takes the architecture's"),
    ] = None
    centre_patches: Annotated[
        bool | None,
        Field(
            description="whether inference subtracts the mean patch embedding (true), or takes patches plain (false); "
            "null does what the architecture says"
        ),
    ] = None
    image: ImageRecipe = ImageRecipe()
    text: TextRecipe = TextRecipe()


class FinalRecipe(Section):
    """The last part of a run, in which fewer tokens are dropped, or none."""

    share: Annotated[float, Field(ge=0, le=1, description="part of all steps that it takes; 0 for no such part")] = 0.0
    drop_rate: Annotated[float, Field(ge=0, lt=1, description="share of patch tokens dropped in it")] = 0.0
    resolution: Annotated[Positive | None, Field(description="side of its images; null keeps data.resolution")] = None
    chunk_size: Annotated[
        Positive | None, Field(description="images of one forward pass in it; null keeps train.chunk_size")
    ] = None


class TrainRecipe(Section):
    """How long, how fast, how precisely."""

    epochs: Annotated[Positive | None, Field(description="passes over the data; exactly one of epochs and steps")] = (
        None
    )
    steps: Annotated[Positive | None, Field(description="optimiser steps; exactly one of epochs and steps")] = None
    batch_size: Annotated[
        int,
        Field(
            ge=2,
            examples=[256],
            description="images a step, of all processes together; the other captions of a batch are the negatives",
        ),
    ]
    chunk_size: Annotated[
        Positive | None,
        Field(
            description="images of one forward pass in a process; where it is smaller than the process's part of the "
            "batch, gradient caching keeps memory at that of a chunk; null takes the whole part"
        ),
    ] = None
    loss: Annotated[
        Literal["softmax", "sigmoid"], Field(description="CLIP's contrastive loss, or SigLIP's pairwise one")
    ] = "softmax"
    local_loss: Annotated[
        bool, Field(description="each process computes the loss of its own rows; false: of the whole batch")
    ] = True
    gather_with_grad: Annotated[
        bool, Field(description="gradients travel to the processes that the gathered embeddings came from")
    ] = True
    compile: Annotated[bool, Field(description="compile the towers with torch.compile")] = False
    optimizer: Annotated[Literal["adamw", "lamb"], Field(description="update rule")] = "adamw"
    lr: Annotated[float, Field(gt=0, examples=[1e-3], description="peak learning rate")]
    logit_scale_lr: Annotated[
        float | None,
        Field(ge=0, description="peak learning rate of the log logit scale; 0 keeps it fixed, null takes train.lr"),
    ] = None
    logit_scale_init: Annotated[
        float | None, Field(gt=0, description="logit scale at the start; null takes the architecture's; SigLIP: 10")
    ] = None
    logit_bias_init: Annotated[float, Field(description="bias of the logits at the start; sigmoid loss only")] = -10.0
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
    final: FinalRecipe = FinalRecipe()
    words: WordsRecipe = WordsRecipe()
    classes: ClassesRecipe = ClassesRecipe()
    self_distillation: SelfDistillationRecipe = SelfDistillationRecipe()
    max_logit_scale: Annotated[float, Field(ge=1, description="upper bound of the learned logit scale")] = 100.0
    log_every: Annotated[Positive, Field(description="steps between log lines")] = 10
    validate_every: Annotated[
        Positive | None, Field(description="steps between validation losses; null for once an epoch")
    ] = None
    checkpoint_every: Annotated[
        Positive | None, Field(description="steps between checkpoints; null for once an epoch")
    ] = None
    keep_checkpoints: Annotated[
        Positive, Field(description="number of newest checkpoints left on disk; the best one stays beside them")
    ] = 2

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        if (self.epochs is None) == (self.steps is None):
            raise conflict("set exactly one of train.epochs and train.steps", "train.epochs", "train.steps")
        if self.local_loss and not self.gather_with_grad:
            raise conflict(
                "local_loss: true with gather_with_grad: false gives a wrong gradient, since no process sees how its "
                "embeddings act in the others' rows; set gather_with_grad: true, or both to false",
                "train.gather_with_grad",
                "train.local_loss",
            )
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise conflict(
                f"{self.warmup_steps} steps of warm-up leave nothing of {self.steps} steps",
                "train.warmup_steps",
                "train.steps",
            )
        return self


class EvaluateRecipe(Section):
    """What is measured while training goes on and once it is over; by the evaluator of clippy evaluate."""

    scenes: Annotated[int, Field(ge=0, description="held-out generated scenes to segment; 0 for none")] = 0
    sets: Annotated[
        tuple[str, ...],
        BeforeValidator(one_or_many),
        Field(description="named sets, as clippy evaluate takes them, such as [voc20, imagenet]"),
    ] = ()
    data_root: Annotated[LocalPath | None, Field(description="folder of the sets; null takes $CLIPPY_DATA")] = None
    protocol: Annotated[str, Field(min_length=1, description="protocol of the evaluation: a name or a file")] = "clippy"
    limit: Annotated[Positive | None, Field(description="first images of each set that are used; null for all")] = None
    every: Annotated[Positive | None, Field(description="steps between evaluations; null: once training is over")] = (
        None
    )
    best: Annotated[
        str | None,
        Field(
            pattern=r"^[\w\-]+\.[\w\-@]+$",
            description="which figure makes the best checkpoint, such as voc20.miou; null: the validation loss",
        ),
    ] = None

    @model_validator(mode="after")
    def _fits(self) -> EvaluateRecipe:
        if self.every is not None and not self.sets and not self.scenes:
            raise conflict("nothing is evaluated; name sets, or a number of scenes", "evaluate.every")
        return self


class LogRecipe(Section):
    """Where figures go beside log.jsonl, which is always written."""

    tensorboard: Annotated[bool, Field(description="also write TensorBoard events; needs clippy-seg[tensorboard]")] = (
        False
    )
    wandb: Annotated[
        str | None, Field(min_length=1, description="Weights & Biases project; needs clippy-seg[wandb]; null for none")
    ] = None


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
    log: LogRecipe = LogRecipe()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.data.cache_features and self.train.final.resolution is not None:
            raise conflict(
                "stored features have one resolution; leave train.final.resolution out",
                "train.final.resolution",
                "data.cache_features",
            )
        if self.data.cache_features and self.model.image.freeze == "none":
            raise conflict(
                "stored features need a trunk that does not learn; set model.image.freeze: trunk",
                "data.cache_features",
                "model.image.freeze",
            )
        for what, weight in (("words", self.train.words.weight), ("classes", self.train.classes.weight)):
            if weight and self.model.text.freeze != "all":
                raise conflict(
                    f"{what} are embedded once; set model.text.freeze: all",
                    f"train.{what}.weight",
                    "model.text.freeze",
                )
        if self.train.words.weight and isinstance(self.data.source, ShardsRecipe) and self.data.source.remote:
            raise conflict(
                "words are counted in all captions before training starts; fetch the shards first",
                "train.words.weight",
                "data.source.paths",
            )
        if self.train.self_distillation.weight and self.model.image.freeze != "none":
            raise conflict(
                "self-distillation trains the trunk; set model.image.freeze: none and data.cache_features: false",
                "train.self_distillation.weight",
                "model.image.freeze",
            )
        return self
