"""BSDS500: photos that several people have cut into regions, one MATLAB file a photo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.benchmarks.base import AnnotatedRegions, RegionSet, check_size
from clippy_cli.data.benchmarks.masks import fill, find_keys
from clippy_cli.data.benchmarks.matlab import read_variable
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError

_AGAIN = "Unpack the data set again."


def open_bsds(name: str, spec: SetSpec, folder: Path) -> RegionSet:
    """The photos and annotation files below ``folder`` that ``spec.images`` and ``spec.masks`` match, in key order.

    A photo without annotation, or annotation without its photo, is an error of that image only; ClippyError here where
    there are no photos or no annotation at all.
    """
    photos, with_photo = _find(folder, spec.images)
    masks, with_mask = _find(folder, spec.masks)
    return _Bsds(name, spec, folder, photos, masks, tuple(sorted(with_photo | with_mask)))


class _Bsds(RegionSet):
    def __init__(self, name: str, spec: SetSpec, folder: Path, photos: str, masks: str, keys: tuple[str, ...]) -> None:
        self.info = spec.info(name, folder)
        self._folder = folder
        self._photos = photos
        self._masks = masks
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def files(self, index: int) -> tuple[Path, ...]:
        key = self._keys[index]
        return self._folder / fill(self._photos, key), self._folder / fill(self._masks, key)

    def read(self, index: int) -> AnnotatedRegions:
        key = self._keys[index]
        image = read_image(self._folder / fill(self._photos, key))
        path = self._folder / fill(self._masks, key)
        annotations = _read_regions(path)
        for regions in annotations:
            check_size(path, regions, image)
        return AnnotatedRegions(key, image, annotations)


def _find(folder: Path, patterns: Sequence[str]) -> tuple[str, set[str]]:
    """The first pattern that any file fits, and the keys of those files."""
    for pattern in patterns:
        keys = set(find_keys(folder, pattern))
        if keys:
            return pattern, keys
    raise ClippyError(f"{folder}: no file fits {' or '.join(patterns)}", _AGAIN)


def _read_regions(path: Path) -> tuple[NDArray[np.int32], ...]:
    """The region map (H,W) of each annotator, regions numbered from 0 in the order of the file's own numbers."""
    held = read_variable(path, "groundTruth", what="a BSDS500 annotation", hint=_AGAIN)
    try:
        maps = [annotator["Segmentation"][0, 0] for annotator in held.ravel()]
        if not maps or any(regions.ndim != 2 or regions.dtype.kind not in "iu" or not regions.size for regions in maps):
            raise ValueError("groundTruth holds no maps of region numbers")
    except Exception as error:  # whatever it is instead of a cell of structs: KeyError, TypeError, IndexError, ...
        raise ClippyError(
            f"{path}: not a BSDS500 annotation: {type(error).__name__}: {error}; looked for "
            "groundTruth{i}.Segmentation in a MATLAB 5 file",
            _AGAIN,
        ) from error
    return tuple(np.unique(regions, return_inverse=True)[1].reshape(regions.shape).astype(np.int32) for regions in maps)
