"""The data section of a recipe: sources of captioned images, and how they are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from clippy_cli.checked_yaml import conflict

_needs_variables: ContextVar[bool] = ContextVar("needs_variables", default=True)


@contextmanager
def unset_variables_allowed() -> Iterator[None]:
    """Within the block, ``${NAME}`` of a variable that is not set becomes NAME instead of an error."""
    token = _needs_variables.set(False)
    try:
        yield
    finally:
        _needs_variables.reset(token)


def expand_path(text: str) -> str:
    """Replace ``${NAME}`` by the environment variable of that name and a leading ``~`` by the home folder."""

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ and _needs_variables.get():
            raise PydanticCustomError(
                "environment", "the environment variable {name} is not set; export {name}=FOLDER first", {"name": name}
            )
        return os.environ.get(name, name)

    return os.path.expanduser(re.sub(r"\$\{(\w+)\}", variable, text))  # noqa: PTH111 (URLs must stay as they are)


def one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str | int) else value


def is_url(path: str) -> bool:
    """Whether a path names something that is not a local file, such as ``https://host/00000.tar``."""
    return re.match(r"\w[\w+.\-]*:(//|:)|pipe:", path) is not None


LocalPath = Annotated[str, Field(min_length=1), AfterValidator(expand_path)]
Positive = Annotated[int, Field(gt=0)]

MAX_REPEAT = 1000


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ShardsRecipe(Section):
    """WebDataset shards: image and caption members that share a key; local files, or URLs that are fetched whole."""

    kind: Annotated[Literal["shards"], Field(description="tar files of images and captions")]
    paths: Annotated[
        tuple[LocalPath, ...],
        BeforeValidator(one_or_many),
        Field(
            min_length=1,
            examples=[["train-{0000..0099}.tar"]],
            description="tar files or URLs; brace ranges such as train-{0000..0099}.tar and globs are expanded",
        ),
    ]
    samples: Annotated[
        Positive | None, Field(description="pairs in all; needed for URLs and for --plan, counted in local files")
    ] = None
    cache: Annotated[
        LocalPath | None, Field(description="folder for fetched shards; null: shards in the run folder; URLs only")
    ] = None
    cache_gb: Annotated[float, Field(gt=0, description="disk space for fetched shards in GB; URLs only")] = 50.0
    window: Annotated[Positive, Field(description="shards whose samples are shuffled together; URLs only")] = 8

    @property
    def remote(self) -> bool:
        return any(is_url(path) for path in self.paths)


class TableRecipe(Section):
    """A CSV or TSV file with one image path and one caption a row."""

    kind: Annotated[Literal["table"], Field(description="a CSV or TSV file")]
    path: Annotated[LocalPath, Field(examples=["captions.csv"], description="the .csv or .tsv file")]
    image_column: Annotated[str | None, Field(description="header of the image paths; null finds it")] = None
    caption_column: Annotated[str | None, Field(description="header of the captions; null finds it")] = None
    root: Annotated[LocalPath | None, Field(description="folder of relative image paths; null: the file's own")] = None
    max_doubtful: Annotated[
        float,
        Field(ge=0, le=1, description="largest share of rows that do not fit the header; a run with more is refused"),
    ] = 0.01


class ScenesRecipe(Section):
    """Captioned scenes drawn on the fly; no data needed."""

    kind: Annotated[Literal["scenes"], Field(description="generated scenes")]
    count: Annotated[Positive, Field(examples=[20000], description="number of scenes")]
    seed: Annotated[int, Field(ge=0, description="seed of the scenes")] = 0


class ClassFoldersRecipe(Section):
    """Images in one folder a class; the words of the class are their captions."""

    kind: Annotated[Literal["class_folders"], Field(description="one folder of images a class")]
    path: Annotated[
        LocalPath,
        Field(examples=["imagenet/train"], description="folder of the class folders, named by words or WordNet ids"),
    ]


class PartRecipe(Section):
    """One source of a mixture."""

    source: Annotated[
        ShardsRecipe | TableRecipe | ClassFoldersRecipe | ScenesRecipe,
        Field(discriminator="kind", description="kind shards (local files), table, class_folders or scenes"),
    ]
    repeat: Annotated[
        int, Field(gt=0, le=MAX_REPEAT, description="times that each of its samples comes in an epoch")
    ] = 1


class MixtureRecipe(Section):
    """Several local sources, shuffled together."""

    kind: Annotated[Literal["mixture"], Field(description="several sources, shuffled together")]
    parts: Annotated[tuple[PartRecipe, ...], Field(min_length=1, description="the sources")]


SourceRecipe = Annotated[
    ShardsRecipe | TableRecipe | ClassFoldersRecipe | ScenesRecipe | MixtureRecipe,
    Field(
        discriminator="kind",
        description="where captioned images come from: kind shards, table, class_folders, scenes or mixture",
    ),
]


class DataRecipe(Section):
    """What the model sees."""

    source: SourceRecipe
    validation: Annotated[
        SourceRecipe | None, Field(description="a second source whose loss is logged; null for none")
    ] = None
    resolution: Annotated[
        Annotated[tuple[Positive, ...], Field(min_length=1)] | None,
        BeforeValidator(one_or_many),
        Field(
            description="side of the training image in pixels, or several of which each batch draws one; "
            "null takes the architecture's"
        ),
    ] = None
    crop_scale: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Field(description="range of the random crop's share of the image area; [1, 1] is a plain center crop"),
    ] = (1.0, 1.0)
    flip: Annotated[bool, Field(description="mirror half of the images, at random")] = False
    workers: Annotated[
        int, Field(ge=0, le=256, description="readers of images, for each training process; 0 reads in that itself")
    ] = 2
    prefetch: Annotated[Positive, Field(description="batches that each reader prepares ahead")] = 2
    cache_features: Annotated[
        bool, Field(description="run the frozen trunk once and train on its stored tokens; needs model.image.freeze")
    ] = False

    @model_validator(mode="after")
    def _fits(self) -> DataRecipe:
        low, high = self.crop_scale
        if low > high:
            raise conflict(f"the range [{low}, {high}] is empty; write the smaller share first", "data.crop_scale")
        if isinstance(self.validation, ShardsRecipe) and self.validation.remote:
            raise conflict("the validation source is read from end to end; give local shards", "data.validation.paths")
        for name, source in (("source", self.source), ("validation", self.validation)):
            parts = source.parts if isinstance(source, MixtureRecipe) else ()
            if any(isinstance(part.source, ShardsRecipe) and part.source.remote for part in parts):
                raise conflict("shards behind URLs cannot be part of a mixture; fetch them first", f"data.{name}.parts")
        remote = isinstance(self.source, ShardsRecipe) and self.source.remote
        if isinstance(self.source, ShardsRecipe) and remote:
            if not all(is_url(path) for path in self.source.paths):
                raise conflict(
                    "local files and URLs are read in different ways; name only one kind", "data.source.paths"
                )
            if self.source.samples is None:
                raise conflict(
                    "shards behind URLs are not counted first; set data.source.samples to the pairs that they hold",
                    "data.source.paths",
                )
        if self.cache_features and remote:
            raise conflict(
                "stored features need local shards; fetch them first, or set data.cache_features: false",
                "data.cache_features",
                "data.source",
            )
        if self.cache_features and len(self.resolution or ()) > 1:
            raise conflict(
                "features are stored at one resolution; give one, or set data.cache_features: false",
                "data.cache_features",
                "data.resolution",
            )
        if self.cache_features and self.crop_scale != (1.0, 1.0):
            raise conflict(
                "cached features cannot follow random crops; set data.crop_scale: [1, 1] or data.cache_features: false",
                "data.cache_features",
                "data.crop_scale",
            )
        return self
