"""COCO's panoptic annotation, read as one class a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet, SegmentedImage, check_size, read_photo_for
from clippy_cli.data.benchmarks.patterns import AGAIN, PatternFiles
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.regular_files import read_bytes

_VOID = 0  # the id of pixels without a segment, and the category id that data files name them by
MAX_JSON_BYTES = 1 << 30  # panoptic_train2017.json has half of it


class _Segment(BaseModel):
    id: Annotated[int, Field(gt=_VOID, lt=1 << 24)]
    category_id: int


class _Annotation(BaseModel):
    file_name: str
    segments_info: tuple[_Segment, ...]


class _Document(BaseModel):
    annotations: Annotated[tuple[_Annotation, ...], Field(min_length=1)]


def open_panoptic(name: str, spec: SetSpec, folder: Path) -> SegmentationSet:
    """COCO's panoptic annotation below ``folder``: photos, one JSON file (``spec.listing``) and a PNG file a photo.

    Each pixel has its segment's category, of crowd segments too, as in detectron2's conversion to semantic maps
    (datasets/prepare_panoptic_fpn.py); pixels without a segment (VOID) count as category 0. ``spec.values`` maps
    categories to classes. ClippyError where the JSON file is missing or of another shape, or names a category that
    ``spec`` does not, or where no photo or no PNG file is there at all.
    """
    listing = folder / (spec.listing or "")
    targets = dict.fromkeys((_VOID, *spec.ignore), IGNORE)
    targets |= {value: index for index, values in enumerate(spec.values_of().values()) for value in values}
    segments: dict[str, tuple[NDArray[np.uint32], NDArray[np.uint8]]] = {}
    for annotation in _read_listing(listing).annotations:
        key = PurePosixPath(annotation.file_name).stem
        if key in segments:
            raise ClippyError(f"{listing}: {annotation.file_name} is annotated twice", AGAIN)
        segments[key] = _sorted_segments(annotation, targets, listing)
    photos, masks = PatternFiles(folder, spec.images), PatternFiles(folder, spec.masks)
    for files, what in ((photos, "photo"), (masks, "annotation")):
        if not any(map(files.has, segments)):
            raise ClippyError(f"{folder}: none of {len(segments)} {what} files is there; looked for {files}", AGAIN)
    return _Panoptic(name, spec, folder, photos, masks, segments)


class _Panoptic(SegmentationSet):
    def __init__(
        self,
        name: str,
        spec: SetSpec,
        folder: Path,
        photos: PatternFiles,
        masks: PatternFiles,
        segments: Mapping[str, tuple[NDArray[np.uint32], NDArray[np.uint8]]],
    ) -> None:
        self.info = spec.info(name, folder)
        self.classes, self.background = spec.benchmark_classes(), spec.background_index()
        self.context = spec.context
        self._photos = photos
        self._masks = masks
        self._listing = folder / (spec.listing or "")
        self._keys = tuple(segments)
        self._segments = tuple(segments.values())

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def files(self, index: int) -> tuple[Path, ...]:
        key = self._keys[index]
        return self._photos.path(key), self._masks.path(key), self._listing

    def read(self, index: int) -> SegmentedImage:
        key, notices = self._keys[index], Notices()
        path = self._masks.path(key)
        red, green, blue = np.moveaxis(read_image(path).astype(np.uint32), 2, 0)  # (H,W,3) -> 3 of (H,W)
        pixels = red + (green << 8) + (blue << 16)
        image = read_photo_for(self._photos.path(key), [pixels], self.info.exif, notices)
        check_size(path, pixels, image)
        ids, targets = self._segments[index]
        place = np.minimum(np.searchsorted(ids, pixels), len(ids) - 1)
        unknown = pixels[ids[place] != pixels]
        if unknown.size:
            raise ClippyError(
                f"{path}: {unknown.size} of {pixels.size} pixels have segment ids that the JSON file does not list for "
                f"this photo, such as {unknown[0]}",
                "Take the PNG files and the JSON file from the same archive.",
            )
        return SegmentedImage(key, image, targets[place], tuple(notices))


def _read_listing(path: Path) -> _Document:
    """The annotations of the JSON file; pydantic parses it without making objects of other fields."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ClippyError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB", AGAIN)
        return _Document.model_validate_json(read_bytes(path))
    except OSError as error:
        raise ClippyError(f"{path}: cannot be read ({error})", AGAIN) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ClippyError(
            f"{path}: not COCO panoptic annotation: {f'{where}: ' if where else ''}{first['msg']}",
            "Take panoptic_val2017.json; instances and captions are other files.",
        ) from error


def _sorted_segments(
    annotation: _Annotation, targets: Mapping[int, int], listing: Path
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Segment ids of one photo in rising order, VOID first, and the class index of each."""
    category_of = {_VOID: _VOID} | {segment.id: segment.category_id for segment in annotation.segments_info}
    if len(category_of) <= len(annotation.segments_info):
        raise ClippyError(f"{listing}: {annotation.file_name} has two segments of one id", AGAIN)
    strange = sorted(set(category_of.values()) - set(targets))
    if strange:
        raise ClippyError(
            f"{listing}: category {strange[0]} of {annotation.file_name} is none of the set's classes",
            "Take COCO's own file, or name the category under `values` or `ignore` in the set's data file.",
        )
    ids = sorted(category_of)
    return np.array(ids, np.uint32), np.array([targets[category_of[one]] for one in ids], np.uint8)
