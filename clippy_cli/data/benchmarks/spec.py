"""What a data file of a segmentation set says; built-in sets and a user's own are written alike."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clippy_cli.checked_yaml import EncodableModel, conflict
from clippy_cli.data.benchmarks.base import IGNORE, BenchmarkClass, ExifRule, SetInfo

Reader = Literal["masks", "context-mat", "coco-panoptic", "bsds", "class-folders"]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str | int) else value


def _own_words(value: object) -> object:
    """Names alone, in a list or without a value, are their own prompts."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        name, times = Counter(value).most_common(1)[0] if value else ("", 0)
        if times > 1:
            raise PydanticCustomError("doubles", "must name each class once, {name} is there twice", {"name": name})
        return {name: name for name in value}
    if isinstance(value, dict):
        return {name: name if words is None else words for name, words in value.items()}
    return value


def _one_key(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if pattern.count("{}") != 1:
            raise PydanticCustomError("pattern", "must have {} once, where an image's key stands", {})
    return patterns


Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_one_or_many)]
Prompts = Annotated[Words, Field(min_length=1)]
Patterns = Annotated[Words, AfterValidator(_one_key)]
Values = Annotated[tuple[Annotated[int, Field(ge=0, lt=1 << 16)], ...], BeforeValidator(_one_or_many)]


class SetSpec(EncodableModel):
    """A set of images with annotation: where its files lie, and what their values mean.

    Paths are relative to a root; ``{}`` stands for an image's key and may span folders.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    title: str = Field(examples=["My photos"], description="What reports call the set, with release and split.")
    source: str = Field("", description="Where class names, prompts and mask values come from.")
    home: str = Field("", description="Where to obtain the set.")
    tree: str = Field("", description="The expected files, as shown to someone who lacks them.")
    split: str = Field("", description="Which split of a published set this is, such as val.")
    complete: int | None = Field(None, gt=0, description="Number of images of the whole published split.")
    reader: Reader = Field("masks", description="How the annotation is stored.")
    annotation: str = Field("", description="Which annotation this is, where there is a choice that changes figures.")
    fallback: str | None = Field(None, description="Data file of the same set in another layout, tried when not found.")
    roots: Words = Field((".",), description="Folders to try below the data folder, first found wins.")
    images: Patterns = Field(
        (), description="Pattern of the photos, such as images/{}.jpg; several mean all files that fit one of them."
    )
    masks: Patterns = Field((), description="Pattern of the masks, such as masks/{}.png; several as for images.")
    listing: str | None = Field(None, description="A text file of keys, one a line; without it every photo counts.")
    palette: Literal["voc", "any"] | None = Field(
        None,
        description="Refuse palette masks whose colours are not VOC's; any: do not compare them with the first mask's.",
    )
    exif: ExifRule | None = Field(
        None,
        description="Turn photos by their EXIF orientation (apply) or not (ignore); without, as the size of the "
        "annotation says.",
    )
    classes: Annotated[dict[str, Prompts], BeforeValidator(_own_words)] = Field(
        {}, description="Class name to the words a model is asked for, in order; a list where those are the names."
    )
    vocabulary: Literal["imagenet"] | None = Field(
        None, description="Class folders are WordNet ids or indices of ImageNet-1k, instead of class names."
    )
    first: int = Field(0, ge=0, description="Mask value of the first class; the others follow.")
    values: dict[str, Values] | None = Field(None, description="Mask values of each class, instead of counting.")
    ignore: Values = Field((255,), description="Mask values of pixels that do not count.")
    background: str | None = Field(None, description="The class that stands for everything else.")
    context: Words = Field((), description="Further words that count as background.")

    _catalogued: bool = PrivateAttr(default=False)

    def as_catalogued(self) -> Self:
        """This description, as one of the sets that ship with clippy."""
        copy = self.model_copy()
        copy._catalogued = True
        return copy

    def info(self, name: str, folder: Path) -> SetInfo:
        """What results say about the set that this describes, found in ``folder``."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
        return SetInfo(
            name, self.title, folder, self.annotation, self.complete, self._catalogued, digest, self.split, self.exif
        )

    def benchmark_classes(self) -> tuple[BenchmarkClass, ...]:
        """The classes, in order."""
        return tuple(BenchmarkClass(name, prompts) for name, prompts in self.classes.items())

    def background_index(self) -> int | None:
        """Which of the classes stands for everything else."""
        return None if self.background is None else list(self.classes).index(self.background)

    def values_of(self) -> dict[str, tuple[int, ...]]:
        """Class name -> its mask values, in the order of ``classes``."""
        return {
            name: (self.first + index,) if self.values is None else self.values[name]
            for index, name in enumerate(self.classes)
        }

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.reader in ("masks", "context-mat"):
            for field in ("images", "masks", "classes"):
                if not getattr(self, field):
                    raise conflict("a set with masks needs images, masks and classes", field)
        if self.background is not None and self.background not in self.classes:
            raise conflict(f"background is {self.background!r}, which is no class", "background")
        if self.context and self.background is None:
            raise conflict("context words count as background, so name the class that is background", "context")
        if len(self.classes) > IGNORE and self.reader != "class-folders":
            raise conflict(f"there are {len(self.classes)} classes, and a mask can hold at most {IGNORE}", "classes")
        if self.values is not None and set(self.values) != set(self.classes):
            odd = sorted(set(self.values) ^ set(self.classes))
            raise conflict(f"values and classes must name the same classes, unlike {', '.join(odd[:5])}", "values")
        counts = Counter([*self.ignore, *(value for many in self.values_of().values() for value in many)])
        shared = sorted(value for value, times in counts.items() if times > 1)
        if shared and self.classes:
            raise conflict(
                f"value {shared[0]} must mean one class, or be ignored, not both", "values", "ignore", "first"
            )
        return self
