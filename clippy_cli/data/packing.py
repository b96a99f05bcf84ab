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
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.captions import BrokenSampleError, broken_image, map_in_order
from clippy_cli.data.images import image_format, resize_image
from clippy_cli.data.pack_claim import MAX_SHARDS, PACK_FILE, CaptionedFiles, PackFile, Packing, claim, claim_anew
from clippy_cli.data.pack_index import PackedRow, State, captions_digest, content_digest, stamp, write_index
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.shard_index import MAX_CAPTION_BYTES, MAX_IMAGE_BYTES
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.notices import Notices

EXAMPLES = 5

_EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    Attributes:
        paths: the shards, as a recipe takes them.
        samples, captions: in all shards; ``smallest`` and ``largest`` are the samples of one shard.
        encoded: images that were shrunk, or that were in a format shards do not hold, and became JPEGs.
        skipped: images that cannot be used; ``examples`` names the first, the ``.tsv`` beside each shard all.
        kept: shards that were there whole from an interrupted run.
        notices: of the source, and of earlier shards that could not be kept.
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
    notices: Notices


def shards_for(images: int, samples_per_shard: int) -> int:
    """How many shards hold ``images`` with at most ``samples_per_shard`` in each; ClippyError for over a million."""
    shards = max(1, -(-images // samples_per_shard))
    if shards > MAX_SHARDS:
        raise ClippyError(
            f"{images:,} images would make {shards:,} shards, more than {MAX_SHARDS:,}", "Make them larger."
        )
    return shards


def pack_shards(
    source: CaptionedFiles,
    out: Path,
    packing: Packing,
    *,
    workers: int = 2,
    overwrite: bool = False,
    on_progress: Callable[[], None] | None = None,
) -> PackReport:
    """Write ``source`` into ``out`` as tar shards, with an index ``.tsv`` (key, state, image, problem) beside each.

    Every image is decoded once, in ``workers`` threads; the bytes of the shards do not depend on their number. An image
    that cannot be used is skipped. Whole shards of an interrupted run of the same input and settings are kept.
    ``on_progress`` is called once an image. ClippyError where ``out`` holds anything else, where files have changed
    since they were packed there, or no image can be used. With ``overwrite`` an earlier pack in ``out`` and files of
    the shards' names are replaced from the beginning, and what else is there stays.
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
    described = PackFile(packing=packing, images=count, fingerprint=_fingerprint(source))
    notices = Notices(source.notices)
    kept: dict[int, list[PackedRow]] = {}
    if overwrite:
        claim_anew(out, described)
    else:
        kept = claim(out, described, source, order, notices)
    tally = _Tally()
    for number, indices in enumerate(np.array_split(order, packing.shards)):
        tar, index = packing.files(out, number)
        rows = kept.get(number)
        if rows is None:
            rows = _write_shard(tar, source, indices, packing, workers, on_progress)
            write_whole(index, partial(write_index, rows))
        elif on_progress is not None:
            for _ in rows:
                on_progress()
        tally.add(rows, [len(source.captions(int(i))) for i in indices], tar.stat().st_size, number in kept)
    if not tally.samples:
        _remove(out, packing)
        raise ClippyError(f"None of {count:,} images can be used: {tally.examples[0]}", "Look at the images.")
    whole = described.model_copy(update={"notices": source.notices.records()}).model_dump_json(indent=2).encode()
    write_whole(out / PACK_FILE, lambda stream: stream.write(whole))
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
        notices=notices,
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
                for extension, content in sample.members.items():
                    header = tarfile.TarInfo(f"{key}.{extension}")  # time, owner and group stay 0
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
                file = (*sample.stamp, sample.digest, captions_digest(source.captions(index)))
                rows.append(PackedRow(key, sample.state, str(source.path(index)), sample.problem, *file))
                if on_progress is not None:
                    on_progress()

    write_whole(path, write)
    return rows


class _Sample(NamedTuple):
    """Members by their extensions, none where there is a problem; size, time and digest of the image's file."""

    members: dict[str, bytes]
    state: State
    problem: str
    stamp: tuple[str, str]
    digest: str


def _make(source: CaptionedFiles, packing: Packing, index: int) -> _Sample:
    """One sample, its image decoded to see that it is whole."""
    where = str(source.path(index))
    before, digest = stamp(source.path(index)), ""  # taken first: what is written meanwhile shows next time
    try:
        data = source.image_bytes(index)
        digest = content_digest(data)
        members, state = _members(source, packing, index, data)
    except BrokenSampleError as error:
        return _Sample({}, "skipped", error.why, before, digest)
    except ClippyError as error:
        return _Sample({}, "skipped", broken_image(where, error).why, before, digest)
    return _Sample(members, state, "", before, digest)


def _members(source: CaptionedFiles, packing: Packing, index: int, data: bytes) -> tuple[dict[str, bytes], State]:
    where = str(source.path(index))
    pixels = EncodedPicture(data, where).pixels()
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
            raise BrokenSampleError(where, f"{len(content):,} bytes of {what}; a sample has at most {most:,}")
    return {extension: data, "txt" if one else "json": encoded}, state


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _remove(out: Path, packing: Packing) -> None:
    for number in range(packing.shards):
        for path in packing.files(out, number):
            path.unlink(missing_ok=True)
    (out / PACK_FILE).unlink(missing_ok=True)


def _fingerprint(source: CaptionedFiles) -> str:
    digest = hashlib.sha256()
    for index in range(len(source)):
        names = (source.key(index), os.fspath(source.path(index)), *source.captions(index))
        digest.update(json.dumps(names).encode() + b"\n")
    return digest.hexdigest()[:32]
