"""What the photos of a part become: a tar of masks and JSON for segment, JSON Lines for classify.

A product writes results in the order of the photos, holds a few at a time, and its bytes depend on nothing else.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.captions import map_in_order
from clippy_cli.errors import ClippyError
from clippy_cli.files import json_text
from clippy_cli.notices import printable
from clippy_cli.reporting.answers import Failure
from clippy_cli.reporting.masks import mask_image
from clippy_cli.reporting.palette import MAX_LABELS
from clippy_cli.reporting.products import PNG_LEVEL
from clippy_cli.reporting.results import Classification, Segmentation

SEGMENT_KINDS = ("mask", "json")
_WRITERS = 2

Keyed = tuple[str, Any]  # a key, and a result or a Failure


class Product(Protocol):
    """How one part's results are written."""

    @property
    def ending(self) -> str:
        """Of the file, such as ``.tar``."""
        ...

    def write(self, stream: BinaryIO, results: Iterable[Keyed], folder: Path) -> None:
        """Write all results; ``folder`` is for what does not fit into memory, and cleared afterwards."""
        ...


@dataclass(frozen=True)
class SegmentTar:
    """``KEY.mask.png`` and ``KEY.json``, as ``kinds`` say; ``KEY.error.json`` for a photo that cannot be used.

    Masks are palette PNGs, or 16-bit greyscale for more labels than a palette holds. Headers have time, owner and group
    0. The JSON is :meth:`Segmentation.record` with the key; the settings stand once, in the manifest.
    """

    kinds: tuple[str, ...]
    labels: int
    ending: str = ".tar"

    def write(self, stream: BinaryIO, results: Iterable[Keyed], folder: Path) -> None:
        make = partial(_members, self.kinds, self.labels > MAX_LABELS)
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for members in map_in_order(make, results, _WRITERS):
                for name, content in members:
                    header = tarfile.TarInfo(name)
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps each header it has written


@dataclass(frozen=True)
class ClassifyLines:
    """A line of JSON for each photo: key and guesses, or key, error and hint.

    One file a part and not one a photo, since a guess takes less room than a tar header; pandas and DuckDB read it.
    """

    ending: str = ".jsonl"

    def write(self, stream: BinaryIO, results: Iterable[Keyed], folder: Path) -> None:
        for key, result in results:
            fields = failure_record(key, result) if isinstance(result, Failure) else _record(key, result)
            stream.write(_json(fields) + b"\n")


def shard_kinds(kinds: tuple[str, ...] | None) -> tuple[str, ...]:
    """The kinds of :class:`SegmentTar`, both by default; ClippyError for others, and for none."""
    others = [kind for kind in kinds or () if kind not in SEGMENT_KINDS]
    if others or kinds == ():
        raise ClippyError(
            f"--save {','.join(others) or 'none'} is not for shards",
            "Choose mask, json or both; clippy segment photo.jpg draws overlays of the photos that you want to see.",
        )
    return tuple(kind for kind in SEGMENT_KINDS if kinds is None or kind in kinds)


def failure_record(key: str, failure: Failure) -> dict[str, Any]:
    """Key, error and hint of a photo that cannot be used."""
    return {"key": printable(key), "error": failure.error.message, "hint": failure.error.hint}


def encode_mask(codes: NDArray[np.int16], *, deep: bool) -> bytes:
    """(H,W) codes as PNG: palette, or 16-bit greyscale where ``deep``; 0 is unlabeled, 1 to L the labels."""
    image = Image.fromarray(codes.astype(np.uint16)) if deep else mask_image(codes)
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=PNG_LEVEL)
    return stream.getvalue()


def _members(kinds: tuple[str, ...], deep: bool, keyed: Keyed) -> list[tuple[str, bytes]]:
    key, result = keyed
    if isinstance(result, Failure):
        return [(f"{key}.error.json", _json(failure_record(key, result)))]
    return list(_segmented(key, result, kinds, deep))


def _segmented(key: str, result: Segmentation, kinds: tuple[str, ...], deep: bool) -> Iterator[tuple[str, bytes]]:
    if "mask" in kinds:
        yield f"{key}.mask.png", encode_mask(result.mask, deep=deep)
    if "json" in kinds:
        yield f"{key}.json", _json(_record(key, result))


def _record(key: str, result: Segmentation | Classification) -> dict[str, Any]:
    noted = {"notices": [notice.record() for notice in result.notices]} if result.notices else {}
    return {"key": printable(key), **result.record(), **noted}


def _json(document: object) -> bytes:
    return json_text(document, indent=None).encode()
