"""From image files with captions to webdataset shards whose bytes depend on nothing but the input and the settings.

A shard is written under another name and renamed when it is whole, so that an interrupted run can go on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from clippy_cli.data.captions import BrokenSampleError, broken_image, map_in_order
from clippy_cli.data.images import image_format, resize_image
from clippy_cli.data.pack_index import PackedRow, State, read_index, write_index
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.shard_index import MAX_CAPTION_BYTES, MAX_IMAGE_BYTES
from clippy_cli.errors import ClippyError
from clippy_cli.files import claim_folder, write_whole

PACK_FILE = "pack.json"
EXAMPLES = 5

_EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
_ELSEWHERE = "Choose another folder for the shards, or empty this one."


class CaptionedFiles(Protocol):
    """Image files, each with its captions."""

    @property
    def problems(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str: ...

    def path(self, index: int) -> Path: ...

    def captions(self, index: int) -> tuple[str, ...]: ...

    def image_bytes(self, index: int) -> bytes: ...


class Packing(BaseModel):
    """How shards are made.

    Attributes:
        shards: how many; samples are spread evenly over them.
        max_side: larger images are shrunk to this longer side in pixels and become upright JPEGs; None: none are.
        quality: of the JPEGs that are made, 1 to 95.
        shuffle, seed: whether samples are mixed over all shards, and by which draw.
        prefix: of the shards' names and keys: letters, digits, ``-`` and ``_``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: int
    max_side: int | None = None
    quality: int = 92
    shuffle: bool = True
    seed: int = 0
    prefix: str = ""

    @property
    def digits(self) -> int:
        """Of a shard's number; at least five, as img2dataset has it."""
        return max(5, len(str(self.shards - 1)))

    def name(self, number: int) -> str:
        """What shard ``number`` is called, without ``.tar``."""
        return f"{self.prefix}{number:0{self.digits}}"

    @property
    def pattern(self) -> str:
        """All shards' file names, as a recipe takes them: ``{00000..00007}.tar``."""
        if self.shards == 1:
            return f"{self.name(0)}.tar"
        return f"{self.prefix}{{{0:0{self.digits}}..{self.shards - 1:0{self.digits}}}}.tar"


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    Attributes:
        paths: the shards, as a recipe takes them.
        samples, captions: in all shards; ``smallest`` and ``largest`` are the samples of one shard.
        encoded: images that were shrunk, or that were in a format shards do not hold, and became JPEGs.
        skipped: images that cannot be used; ``examples`` names the first, the ``.tsv`` beside each shard all.
        kept: shards that were there whole from an interrupted run.
    """

    folder: Path
    paths: str
    shards: int
    samples: int
    captions: int
    bytes: int
    smallest: int
    largest: int
    encoded: int
    skipped: int
    examples: tuple[str, ...]
    kept: int
    problems: tuple[str, ...]


class _PackFile(BaseModel):
    """What ``pack.json`` says: the settings, and a fingerprint of the names and captions that were packed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    packing: Packing
    images: int
    fingerprint: str


def shards_for(images: int, samples_per_shard: int) -> int:
    """How many shards hold ``images`` with at most ``samples_per_shard`` in each."""
    return max(1, -(-images // samples_per_shard))


def pack_shards(
    source: CaptionedFiles,
    out: Path,
    packing: Packing,
    *,
    workers: int = 2,
    on_progress: Callable[[], None] | None = None,
) -> PackReport:
    """Write ``source`` into ``out`` as tar shards, with an index ``.tsv`` (key, state, image, problem) beside each.

    Every image is decoded once, in ``workers`` threads; the bytes of the shards do not depend on their number. An image
    that cannot be used is skipped. Whole shards of an interrupted run of the same input and settings are kept.
    ``on_progress`` is called once an image. ClippyError where ``out`` holds anything else, or no image can be used.
    """
    if not re.fullmatch(r"[\w-]{0,40}", packing.prefix, re.ASCII):
        raise ClippyError(
            f"The prefix {packing.prefix!r} cannot begin a shard's name",
            "Take at most 40 letters, digits, - and _; for example train-.",
        )
    count = len(source)
    if not 1 <= packing.shards <= count:
        raise ClippyError(f"{count:,} images cannot fill {packing.shards:,} shards", "Ask for fewer shards.")
    order = np.random.default_rng(packing.seed).permutation(count) if packing.shuffle else np.arange(count)
    _claim(out, _PackFile(packing=packing, images=count, fingerprint=_fingerprint(source)))
    tally = _Tally()
    for number, indices in enumerate(np.array_split(order, packing.shards)):
        tar, index = out / f"{packing.name(number)}.tar", out / f"{packing.name(number)}.tsv"
        rows = read_index(index) if tar.is_file() else None
        kept = rows is not None and len(rows) == len(indices)
        if rows is None or not kept:
            rows = _write_shard(tar, source, indices, packing, workers, on_progress)
            write_whole(index, partial(write_index, rows))
        elif on_progress is not None:
            for _ in rows:
                on_progress()
        tally.add(rows, [len(source.captions(int(i))) for i in indices], tar.stat().st_size, kept)
    if not tally.samples:
        _remove(out, packing)
        raise ClippyError(f"None of {count:,} images can be used: {tally.examples[0]}", "Look at the images.")
    return PackReport(
        folder=out,
        paths=str(out / packing.pattern),
        shards=packing.shards,
        samples=tally.samples,
        captions=tally.captions,
        bytes=tally.bytes,
        smallest=min(tally.sizes),
        largest=max(tally.sizes),
        encoded=tally.encoded,
        skipped=count - tally.samples,
        examples=tuple(tally.examples),
        kept=tally.kept,
        problems=source.problems,
    )


class _Tally:
    """Counts over the shards that are done."""

    def __init__(self) -> None:
        self.captions = self.bytes = self.encoded = self.kept = 0
        self.sizes: list[int] = []
        self.examples: list[str] = []

    @property
    def samples(self) -> int:
        return sum(self.sizes)

    def add(self, rows: list[PackedRow], captions: list[int], size: int, kept: bool) -> None:
        used = [row.state != "skipped" for row in rows]
        self.sizes.append(sum(used))
        self.captions += sum(number for number, is_used in zip(captions, used, strict=True) if is_used)
        self.bytes += size
        self.encoded += sum(row.state == "encoded" for row in rows)
        self.kept += kept
        skipped = (f"{row.image}: {row.problem}" for row in rows if row.state == "skipped")
        self.examples += list(skipped)[: EXAMPLES - len(self.examples)]


def _write_shard(
    path: Path,
    source: CaptionedFiles,
    indices: NDArray[np.int64],
    packing: Packing,
    workers: int,
    on_progress: Callable[[], None] | None,
) -> list[PackedRow]:
    rows: list[PackedRow] = []
    keys = [f"{path.stem}_{place:06}" for place in range(len(indices))]

    def write(stream: BinaryIO) -> None:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            made = map_in_order(partial(_make, source, packing), indices.tolist(), workers)
            for key, index, sample in zip(keys, indices.tolist(), made, strict=True):
                image = str(source.path(index))
                if isinstance(sample, BrokenSampleError):
                    rows.append(PackedRow(key, "skipped", image, sample.why))
                else:
                    for extension, content in sample.members.items():
                        header = tarfile.TarInfo(f"{key}.{extension}")  # time, owner and group stay 0
                        header.size = len(content)
                        archive.addfile(header, io.BytesIO(content))
                    rows.append(PackedRow(key, sample.state, image, ""))
                if on_progress is not None:
                    on_progress()

    write_whole(path, write)
    return rows


class _Sample(NamedTuple):
    members: dict[str, bytes]
    state: State


def _make(source: CaptionedFiles, packing: Packing, index: int) -> _Sample | BrokenSampleError:
    """The members of one sample by their extensions, its image decoded to see that it is whole."""
    where = str(source.path(index))
    try:
        data = source.image_bytes(index)
        pixels = EncodedPicture(data, where).pixels()
    except BrokenSampleError as error:
        return error
    except ClippyError as error:
        return broken_image(where, error)
    extension = _EXTENSIONS.get(image_format(data) or "")
    height, width = pixels.shape[:2]
    shrink = min(1.0, (packing.max_side or width + height) / max(height, width))
    state: State = "copied"
    if shrink < 1 or extension is None:
        smaller = resize_image(pixels, max(1, round(height * shrink)), max(1, round(width * shrink)))
        data, extension, state = _jpeg(smaller, packing.quality), "jpg", "encoded"
    captions = source.captions(index)
    one = len(captions) == 1
    text = captions[0] if one else json.dumps({"captions": captions}, ensure_ascii=False)
    encoded = text.encode()
    for what, content, most in (("image", data, MAX_IMAGE_BYTES), ("caption", encoded, MAX_CAPTION_BYTES)):
        if len(content) > most:
            return BrokenSampleError(where, f"{len(content):,} bytes of {what}; a sample has at most {most:,}")
    return _Sample({extension: data, "txt" if one else "json": encoded}, state)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _claim(out: Path, described: _PackFile) -> None:
    """Write ``pack.json`` into an empty folder; ClippyError where another pack or anything else is there."""
    path = out / PACK_FILE
    earlier = claim_folder(out, PACK_FILE, described.model_dump_json(indent=2).encode(), _ELSEWHERE)
    if earlier is None:
        return
    try:
        before = _PackFile.model_validate_json(earlier)
    except ValidationError as error:
        raise ClippyError(f"{path}: is not what a pack leaves here", _ELSEWHERE) from error
    if before != described:
        old, new = before.packing.model_dump(), described.packing.model_dump()
        changed = [f"{name} was {old[name]}, now {new[name]}" for name in old if old[name] != new[name]]
        changed += [] if before.fingerprint == described.fingerprint else ["its images or captions were others"]
        raise ClippyError(f"{out}: holds another pack: {'; '.join(changed)}", _ELSEWHERE)
    for part in out.glob(".*.part"):  # what a killed run left
        part.unlink(missing_ok=True)


def _remove(out: Path, packing: Packing) -> None:
    for number in range(packing.shards):
        for suffix in (".tar", ".tsv"):
            (out / f"{packing.name(number)}{suffix}").unlink(missing_ok=True)
    (out / PACK_FILE).unlink(missing_ok=True)


def _fingerprint(source: CaptionedFiles) -> str:
    digest = hashlib.sha256()
    for index in range(len(source)):
        names = (source.key(index), os.fspath(source.path(index)), *source.captions(index))
        digest.update(json.dumps(names).encode() + b"\n")
    return digest.hexdigest()[:32]
