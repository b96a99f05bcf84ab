"""BSDS500: photos that several people have cut into regions, one MATLAB file a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.benchmarks.base import AnnotatedRegions, RegionSet, check_size, read_photo_for
from clippy_cli.data.benchmarks.matlab import read_variable
from clippy_cli.data.benchmarks.patterns import AGAIN, PatternFiles, note_strays
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.errors import ClippyError, encodable
from clippy_cli.notices import Notices


def open_bsds(name: str, spec: SetSpec, folder: Path) -> RegionSet:
    """The photos and annotation files below ``folder`` that ``spec.images`` and ``spec.masks`` match, in key order.

    A photo without annotation, or annotation without its photo, is an error of that image only; ClippyError here where
    there are no photos or no annotation at all.
    """
    return _Bsds(name, spec, folder)


class _Bsds(RegionSet):
    def __init__(self, name: str, spec: SetSpec, folder: Path) -> None:
        self.info = spec.info(name, folder)
        self._photos, self._masks = PatternFiles(folder, spec.images), PatternFiles(folder, spec.masks)
        self._keys = tuple(sorted({*self._photos.keys(self.notices), *self._masks.keys(self.notices)}))
        note_strays(folder, self._photos, self._masks, self.notices)

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return encodable(self._keys[index])

    def files(self, index: int) -> tuple[Path, ...]:
        key = self._keys[index]
        return self._photos.path(key), self._masks.path(key)

    def read(self, index: int) -> AnnotatedRegions:
        key, notices = self._keys[index], Notices()
        path = self._masks.path(key)
        annotations = _read_regions(path)
        image = read_photo_for(self._photos.path(key), annotations, self.info.exif, notices)
        for regions in annotations:
            check_size(path, regions, image)
        return AnnotatedRegions(self.key(index), image, annotations, tuple(notices))


def _read_regions(path: Path) -> tuple[NDArray[np.int32], ...]:
    """The region map (H,W) of each annotator, regions numbered from 0 in the order of the file's own numbers."""
    held = read_variable(path, "groundTruth", what="a BSDS500 annotation", hint=AGAIN)
    try:
        maps = [annotator["Segmentation"][0, 0] for annotator in held.ravel()]
        if not maps or any(regions.ndim != 2 or regions.dtype.kind not in "iu" or not regions.size for regions in maps):
            raise ValueError("groundTruth holds no maps of region numbers")
    except Exception as error:  # whatever it is instead of a cell of structs: KeyError, TypeError, IndexError, ...
        raise ClippyError(
            f"{path}: not a BSDS500 annotation: {type(error).__name__}: {error}; looked for "
            "groundTruth{i}.Segmentation in a MATLAB 5 file",
            AGAIN,
        ) from error
    return tuple(np.unique(regions, return_inverse=True)[1].reshape(regions.shape).astype(np.int32) for regions in maps)
