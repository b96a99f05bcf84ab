"""The sections of a recipe's loss terms: what ``train`` may add to the contrastive loss. A weight of 0 is no term."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from clippy_cli.checked_yaml import conflict
from clippy_cli.recipe.data import Positive, Section

Share = Annotated[float, Field(ge=0, le=1)]


class WordsRecipe(Section):
    """Frequent words of the captions as texts of their own, beside the contrastive loss.

    A word is a run of two letters or more, in lower case; languages without spaces have no words here.
    """

    weight: Annotated[float, Field(ge=0, description="factor of the words' loss; 0 for none")] = 0.0
    min_images: Annotated[Positive, Field(description="images that a word must be in the captions of")] = 6
    min_share: Annotated[
        float, Field(gt=0, le=1, description="share of an image's captions that must hold a word for it to count")
    ] = 0.3
    balance: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of the advantage of frequent words over rare ones that is removed",
        ),
    ] = 0.5


class ClassesRecipe(Section):
    """What the trunk's own classifier says of an image, taught to the patches through the names of its classes."""

    weight: Annotated[
        float, Field(ge=0, description="factor of the classes' loss; 0 for none; needs weights supervised on ImageNet")
    ] = 0.0


class SelfDistillationRecipe(Section):
    """Two crops of each image without their captions: DINO on the class token, iBOT on masked patches.

    The trunk is the student; the teacher is its running mean. Needs a vision transformer that learns.
    """

    weight: Annotated[float, Field(ge=0, description="factor of both losses; 0 for none")] = 0.0
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="decay of the teacher's running mean at the start; it rises to 1 by a cosine"),
    ] = 0.996
    student_temperature: Annotated[float, Field(gt=0, description="divides the student's cosines")] = 0.1
    teacher_temperature: Annotated[
        float, Field(gt=0, description="divides the teacher's cosines; lower is sharper than the student's")
    ] = 0.04
    center_momentum: Annotated[
        float, Field(ge=0, lt=1, description="decay of the mean that is subtracted from the teacher's cosines")
    ] = 0.9
    mask_share: Annotated[
        tuple[Share, Share], Field(description="range of the share of patches that are masked in each crop")
    ] = (0.1, 0.5)
    prototypes: Annotated[Positive, Field(description="outputs of the head")] = 4096
    hidden_dim: Annotated[Positive, Field(description="width of the head's two hidden layers")] = 1024
    bottleneck_dim: Annotated[Positive, Field(description="width of the unit vectors compared with prototypes")] = 256
    head_lr: Annotated[
        float | None, Field(gt=0, description="peak learning rate of head and mask token; null takes train.lr")
    ] = None
    crop_scale: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Field(description="range of each crop's share of the image area"),
    ] = (0.32, 1.0)
    color_jitter: Annotated[
        float, Field(ge=0, le=1, description="largest change of brightness and contrast; half of it in saturation")
    ] = 0.4
    resolution: Annotated[
        Positive | None, Field(description="side of the crops in pixels; null takes that of the step's images")
    ] = None

    @model_validator(mode="after")
    def _fits(self) -> SelfDistillationRecipe:
        for name, (low, high) in (("mask_share", self.mask_share), ("crop_scale", self.crop_scale)):
            if low > high:
                raise conflict(
                    f"the range [{low}, {high}] is empty; write the smaller share first",
                    f"train.self_distillation.{name}",
                )
        return self
