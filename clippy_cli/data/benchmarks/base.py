"""The faces of annotated image sets, one for each kind of annotation, and where sets are looked for.

``ImageSet`` is the union of the four kinds; comparing ``images.kind`` narrows it, for the type checker too.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.captions import CaptionedImage
from clippy_cli.data.images import read_stored, turn_upright
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.notices import Notice, Notices
from clippy_cli.regular_files import is_folder

DATA_VARIABLE = "CLIPPY_DATA"
IGNORE = 255  # class maps of more than 254 classes do not occur; a reader maps whatever its set uses to this

Kind = Literal["segmentation", "boundaries", "classification", "retrieval"]


class ExifRule(StrEnum):
    """What the EXIF orientation of a photo means for its annotation.

    APPLY: the photo is turned upright, and its annotation is upright already. IGNORE: both are used as stored.
    """

    APPLY = "apply"
    IGNORE = "ignore"


def parse_exif_rule(text: str | None) -> ExifRule | None:
    """A rule by its name; ClippyError on any other."""
    if text is not None and text not in list(ExifRule):
        raise ClippyError(f"--exif cannot be {text!r}", f"Choose among {', '.join(ExifRule)}.", ExitCode.USAGE)
    return None if text is None else ExifRule(text)


@dataclass(frozen=True)
class Reading:
    """How sets are read, whatever they are: the EXIF rule in place of their own, and whether to refuse notices."""

    exif: ExifRule | None = None
    strict: bool = False


@dataclass(frozen=True)
class BenchmarkClass:
    """A class as the benchmark calls it, and the words that a model is asked for it."""

    name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class SegmentedImage:
    """An image (H,W,3) uint8 RGB and the class index of each pixel (H,W) uint8, ``IGNORE`` where none counts."""

    key: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class AnnotatedRegions:
    """An image (H,W,3) uint8 RGB and one region map (H,W) int32 from each annotator, regions numbered from 0."""

    key: str
    image: NDArray[np.uint8]
    annotations: tuple[NDArray[np.int32], ...]
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class ClassifiedImage:
    """An image (H,W,3) uint8 RGB and the index of its class."""

    key: str
    image: NDArray[np.uint8]
    target: int
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class SetInfo:
    """What results say about a set.

    Attributes:
        name: what the command line calls it.
        title: what reports call it, with its release and split.
        folder: where it was found; None for generated sets.
        annotation: where the annotation comes from, if that is a choice that changes numbers; else empty.
        complete: the number of images of the whole published split; None where there is no such number.
        catalogued: whether this is a set of the catalogue, rather than one of a user's that may have the same name.
        digest: changes with anything that the set's data file says.
        split: which split of a published set it is, such as ``val``; empty where that is not known.
        exif: what the EXIF orientation of photos means; None where the annotation's size decides.
    """

    name: str
    title: str
    folder: Path | None = None
    annotation: str = ""
    complete: int | None = None
    catalogued: bool = False
    digest: str = ""
    split: str = ""
    exif: ExifRule | None = None


class AnnotatedSet(ABC):
    """What every set has: information, a length, and a key for each image that needs no reading."""

    info: SetInfo

    @cached_property
    def notices(self) -> Notices:
        """What was found beside the images and is not used, filled when the set is opened."""
        return Notices()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, index: int) -> str:
        """A name for image ``index``, different from all others of the set and the same on every machine."""

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that image ``index`` and its annotation are read from; none where both are generated."""
        return ()


class SegmentationSet(AnnotatedSet):
    """Images with one class per pixel.

    Attributes:
        classes: in the order of the mask's indices.
        background: index of the class that stands for everything else, or None where there is none such.
        context: further words to ask a model for, all of which count as the background class.
    """

    kind: Literal["segmentation"] = "segmentation"
    classes: tuple[BenchmarkClass, ...]
    background: int | None
    context: tuple[str, ...]

    @abstractmethod
    def read(self, index: int) -> SegmentedImage:
        """Image ``index``; ClippyError where it or its mask cannot be used."""


class RegionSet(AnnotatedSet):
    """Images that several people have cut into regions without names."""

    kind: Literal["boundaries"] = "boundaries"

    @abstractmethod
    def read(self, index: int) -> AnnotatedRegions:
        """Image ``index``; ClippyError where it or an annotation cannot be used."""


class ClassificationSet(AnnotatedSet):
    """Images with one class each; ``classes`` may hold more classes than have images."""

    kind: Literal["classification"] = "classification"
    classes: tuple[BenchmarkClass, ...]

    @abstractmethod
    def read(self, index: int) -> ClassifiedImage:
        """Image ``index``; ClippyError where it cannot be used."""


class RetrievalSet(AnnotatedSet):
    """Images with one caption or several each."""

    kind: Literal["retrieval"] = "retrieval"

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of image ``index``, without decoding it; ClippyError where they cannot be used."""

    @abstractmethod
    def read(self, index: int) -> CaptionedImage:
        """Image ``index`` with its captions; ClippyError where it or they cannot be used."""


ImageSet: TypeAlias = SegmentationSet | RegionSet | ClassificationSet | RetrievalSet
Sample: TypeAlias = SegmentedImage | AnnotatedRegions | ClassifiedImage | CaptionedImage


def set_classes(images: ImageSet) -> tuple[BenchmarkClass, ...]:
    """The classes of a set, in order; none where its annotation has no names."""
    return images.classes if images.kind == "segmentation" or images.kind == "classification" else ()


def read_photo_for(
    path: Path, annotations: Sequence[NDArray[Any]], rule: ExifRule | None, notices: Notices
) -> NDArray[np.uint8]:
    """The photo (H,W,3) uint8 RGB in ``path``, turned by its EXIF orientation where its annotation is, too.

    Without a rule it is turned, unless the annotation has the size of the photo as stored and not as turned; where the
    sizes are the same, as for a half turn, that is an assumption. ``notices`` get both.
    """
    stored, orientation = read_stored(path, notices=notices)
    if orientation == 1 or rule is ExifRule.IGNORE:
        return stored
    upright = turn_upright(stored, orientation)
    hint = "Settle it by `exif: apply` or `exif: ignore` in the set's data file, or by --exif."
    sizes = {annotation.shape for annotation in annotations}
    if rule is None and sizes == {stored.shape[:2]}:
        if upright.shape != stored.shape:
            reason = "turned by their EXIF orientation while the annotation has the stored size, both used as stored"
            notices.assumed("photo", reason, str(path), hint=hint)
            return stored
        reason = "turned by their EXIF orientation, and sizes do not show whether the annotation is turned likewise"
        notices.assumed("photo", f"{reason}; taken as turned", str(path), hint=hint)
    return upright


def check_size(path: Path, annotation: NDArray[Any], image: NDArray[np.uint8]) -> None:
    """ClippyError where the annotation in ``path`` and its photo have not the same height and width."""
    if annotation.shape != image.shape[:2]:
        sizes = " and ".join(f"{width}x{height}" for height, width in (annotation.shape, image.shape[:2]))
        raise ClippyError(
            f"{path}: the annotation and its photo differ in size ({sizes} pixels)",
            "Unpack the set again; where photos are turned by their EXIF orientation, see `exif` and --exif.",
        )


def data_root(option: Path | None) -> Path:
    """The folder that holds the data sets: the option's, else the environment's CLIPPY_DATA; ClippyError without."""
    named = option or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if named is None:
        raise ClippyError(
            "No data folder is named",
            f"Give --data-root FOLDER, or set {DATA_VARIABLE} to the folder that holds the data sets.",
        )
    if not is_folder(named):
        raise ClippyError(f"{named}: no such folder", f"Check --data-root or {DATA_VARIABLE}.")
    return named
