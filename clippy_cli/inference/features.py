"""Images in, one result each out: reading, resizing, one forward pass for each batch of equal sizes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.images import as_pixels, centre_crop, dense_size, orientation_hides, resize_image, to_tensor
from clippy_cli.data.regions import find_regions, number_regions, read_regions
from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.notices import Notice, Notices
from clippy_cli.stages import DECODE, ENCODER, stage

MAX_PATCHES = 16_384  # attention takes time quadratic in this; 2048x2048 pixels at patch 16
_WINDOW_PIXELS = 64_000_000
_DECODERS = 2

Encode = Callable[[Sequence[NDArray[np.uint8]]], Tensor]
Resize = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class Sample(Protocol):
    """Anything with upright pixels (H,W,3) uint8 and a name for error messages."""

    @property
    def key(self) -> str: ...

    @property
    def image(self) -> NDArray[np.uint8]: ...


Key = TypeVar("Key")
S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class DecodedPhoto:
    """A decoded photo, its path or name, regions (H,W) from 1 that came with it, if any (0 is none), and what was
    assumed when it was read."""

    key: str
    image: NDArray[np.uint8]
    regions: NDArray[np.int32] | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Encoded(Generic[S]):
    """One sample at its own size, and what the model made of its resized copy."""

    sample: S
    output: Tensor


@dataclass(frozen=True)
class Failed(Generic[Key]):
    """One key whose sample could not be used, and why."""

    key: Key
    error: ClippyError


def patch_embeddings(model: VisionLanguageModel, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """B images (H,W,3) uint8 of one size, sides multiples of the patch -> (B,h,w,D) float32 on the CPU, unit norm."""
    return dense_embeddings(model, images).cpu()


def dense_embeddings(
    model: VisionLanguageModel,
    images: Sequence[NDArray[np.uint8]],
    *,
    window: int | None = None,
    stride: int | None = None,
) -> Tensor:
    """As :func:`patch_embeddings`, left on the model's device, and by sliding windows where a window is given.

    ``window`` and ``stride`` are in pixels, multiples of the patch. The last window of a row or column is moved back to
    the image's edge; an image smaller than the window is taken whole along that side. Where windows overlap, the mean
    of their unit embeddings is taken (so norms fall below 1), whose dot products are the mean of the windows' logits.
    """
    pixels = model_input(model, images)
    if window is None:
        return model.embed_patches(pixels).float()
    patch = model.preprocess.patch_size
    tops, lefts = (window_starts(side, window, stride or window) for side in pixels.shape[-2:])
    total: Tensor | None = None
    for top in tops:
        for left in lefts:
            part = model.embed_patches(pixels[..., top : top + window, left : left + window]).float()  # (B,wh,ww,D)
            if total is None:
                h, w = (side // patch for side in pixels.shape[-2:])
                total = part.new_zeros(len(pixels), h, w, part.shape[-1])
                count = part.new_zeros(h, w, 1)
            y, x = top // patch, left // patch
            total[:, y : y + part.shape[1], x : x + part.shape[2]] += part
            count[y : y + part.shape[1], x : x + part.shape[2]] += 1
    assert total is not None
    return total / count


def model_input(model: VisionLanguageModel, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """B images (H,W,3) uint8 of one size -> (B,3,H,W) normalized pixels on the model's device."""
    return model.preprocess.normalize(to_tensor(images).to(model.device))


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side of ``size`` pixels, so that all of it is covered."""
    last = max(size - window, 0)
    return [*range(0, last, stride), last]


def photo_name(photo: object, number: int = 1) -> str:
    """What a photo is called: its path, or ``photo N`` for one in memory."""
    if isinstance(photo, DecodedPhoto):
        return photo.key
    if isinstance(photo, str | os.PathLike):
        return os.fspath(photo)
    return str(getattr(photo, "filename", "") or f"photo {number}")


def read_photo(photo: object, number: int = 1, *, regions: object = None) -> DecodedPhoto:
    """Decode one photo (see :func:`~clippy_cli.data.images.as_pixels`), unless it is already, and its regions.

    ``regions`` is (H,W) whole numbers, 0 for none; or a folder of region files named as the photo (see
    :func:`~clippy_cli.data.regions.read_regions`). ClippyError where either cannot be used.
    """
    notices = Notices()
    if isinstance(photo, DecodedPhoto):
        name, image = photo.key, photo.image
        notices.update(photo.notices)
    else:
        name = photo_name(photo, number)
        image = as_pixels(photo, where=name, notices=notices)
    found = None
    if isinstance(regions, str | os.PathLike):
        path = find_regions(Path(regions), Path(name).stem)
        found = read_regions(path, *image.shape[:2], notices=notices)
        if isinstance(photo, str | os.PathLike) and orientation_hides(Path(photo)):
            reason = "made for a photo with an EXIF orientation, and sizes do not show whether they are turned likewise"
            notices.assumed("region file", f"{reason}; taken as turned", str(path))
    elif regions is not None:
        found = number_regions(np.asarray(regions), *image.shape[:2], where=f"regions of {name}")
    return DecodedPhoto(name, image, found, tuple(notices))


def encode_images(
    keys: Sequence[Key],
    read: Callable[[Key], S],
    encode: Encode,
    *,
    patch_size: int,
    resolution: int,
    batch_size: int,
    workers: int = _DECODERS,
    crop: bool = False,
    resize: Resize | None = None,
) -> Iterator[Encoded[S] | Failed[Key]]:
    """Yield one result a key, in their order.

    ``read`` runs in ``workers`` threads. Each image is resized to short side ``resolution`` in pixels, aspect kept,
    sides multiples of the patch, and with ``crop`` cut to the square in its middle; or by ``resize``, where that is
    given. Images of one size share a batch;
    ``encode`` maps a batch of B to a tensor (B,...), of which each sample gets its row. Batches never reach across
    multiples of ``batch_size`` keys, so that what is in a batch does not depend on where a list was cut there. A
    ClippyError of ``read`` becomes a :class:`Failed`; running out of memory is raised. Memory holds ``batch_size``
    samples and one a worker, or fewer when they are large.
    """
    with ThreadPoolExecutor(workers) as pool:

        def load(key: Key) -> _Loaded[S] | Failed[Key]:
            with stage(DECODE):
                return _load(
                    key, read, resize or partial(_resized, patch_size, resolution, crop), patch_size, resolution
                )

        try:
            for window in _windows(_ahead(pool, load, keys, workers), batch_size):
                yield from _encode_window(window, encode, patch_size, batch_size)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Loaded(Generic[S]):
    sample: S
    resized: NDArray[np.uint8]


def _load(
    key: Key, read: Callable[[Key], S], resize: Resize, patch_size: int, resolution: int
) -> _Loaded[S] | Failed[Key]:
    try:
        sample = read(key)
        height_in, width_in = sample.image.shape[:2]
        height, width = dense_size(height_in, width_in, resolution, patch_size)
        h, w = height // patch_size, width // patch_size
        if h * w > MAX_PATCHES:
            raise ClippyError(
                f"{sample.key}: {width_in}x{height_in} pixels at short side {resolution} make a grid of {w}x{h} "
                f"patches; at most {MAX_PATCHES} in all are taken",
                "Lower --resolution, or crop the image.",
            )
        return _Loaded(sample, resize(sample.image))
    except ClippyError as error:
        return Failed(key, error)


def _resized(patch_size: int, resolution: int, crop: bool, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = dense_size(image.shape[0], image.shape[1], resolution, patch_size)
    resized = resize_image(image, height, width)
    return centre_crop(resized) if crop else resized


def _ahead(
    pool: ThreadPoolExecutor, load: Callable[[Key], _Loaded[S] | Failed[Key]], keys: Sequence[Key], workers: int
) -> Iterator[_Loaded[S] | Failed[Key]]:
    """``load`` over ``keys`` in order, with one sample a thread under way beyond the one asked for."""
    pending: deque[Future[_Loaded[S] | Failed[Key]]] = deque()
    for key in keys:
        pending.append(pool.submit(load, key))
        if len(pending) > workers:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _windows(items: Iterator[_Loaded[S] | Failed[Key]], batch_size: int) -> Iterator[list[_Loaded[S] | Failed[Key]]]:
    window: list[_Loaded[S] | Failed[Key]] = []
    pixels = 0
    for place, item in enumerate(items, start=1):
        window.append(item)
        pixels += item.sample.image.size // 3 if isinstance(item, _Loaded) else 0
        if place % batch_size == 0 or pixels >= _WINDOW_PIXELS:
            yield window
            window, pixels = [], 0
    if window:
        yield window


def _encode_window(
    window: list[_Loaded[S] | Failed[Key]], encode: Encode, patch_size: int, batch_size: int
) -> Iterator[Encoded[S] | Failed[Key]]:
    by_size: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    for index, item in enumerate(window):
        if isinstance(item, _Loaded):
            by_size.setdefault(item.resized.shape, []).append((index, item.resized))
    outputs: dict[int, Tensor] = {}
    for (height, width, _), members in by_size.items():
        patches = (height // patch_size) * (width // patch_size)
        size = max(1, min(batch_size, MAX_PATCHES // patches))
        for start in range(0, len(members), size):
            indices, images = zip(*members[start : start + size], strict=True)
            outputs.update(zip(indices, _encode_or_explain(encode, images), strict=True))
    for index, item in enumerate(window):
        yield Encoded(item.sample, outputs[index]) if isinstance(item, _Loaded) else item


def _encode_or_explain(encode: Encode, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    try:
        with stage(ENCODER):
            return encode(images)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        height, width = images[0].shape[:2]
        raise ClippyError(
            f"The device ran out of memory on {len(images)} images of {width}x{height} pixels",
            "Lower --batch-size or --resolution, or use --device cpu.",
        ) from error
