"""Every object on every background, and where a model puts each. B objects, P backgrounds, D joint embedding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clippy_cli.data.images import dense_size, read_image, to_tensor
from clippy_cli.errors import ClippyError
from clippy_cli.inference.features import Failed, encode_images
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.notices import Notice, Notices
from clippy_cli.waterbirds.build.backgrounds import Backgrounds
from clippy_cli.waterbirds.build.compose import compose
from clippy_cli.waterbirds.build.foregrounds import Foreground, Foregrounds, Mask

AnalysedReadout = Literal["pooled", "bird patches"]
ANALYSED_READOUTS: tuple[AnalysedReadout, ...] = get_args(AnalysedReadout)

_FEWEST = 2  # objects of a class, backgrounds of a place: of one alone nothing varies
_COVERED = 0.5
_log = logging.getLogger(__name__)

_Item = TypeVar("_Item", int, str)


@dataclass(frozen=True)
class BackgroundPhoto:
    """A background that was read, the place that it shows, 0 or 1, and what was assumed when it was read."""

    name: str
    image: NDArray[np.uint8]
    place: int
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Crossing:
    """Which objects are pasted on which backgrounds: each on all.

    Attributes:
        objects: indices of ``foregrounds``, class 0 first.
        backgrounds: place 0 first.
        failed: backgrounds that could not be read, a message each.
    """

    foregrounds: Foregrounds
    objects: tuple[int, ...]
    backgrounds: tuple[BackgroundPhoto, ...]
    failed: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.objects) * len(self.backgrounds)


@dataclass(frozen=True)
class CrossedEmbeddings:
    """What one model made of a crossing.

    Attributes:
        by_readout: unit embeddings (B,P,D) float32 of each readout.
        classes: (B,) class of each object.
        places: (P,) place of each background.
        failed: objects that could not be used, a message each; they are not among the B.
        notices: what was assumed of each object's photo and mask, by its key.
    """

    by_readout: dict[AnalysedReadout, NDArray[np.float32]]
    classes: NDArray[np.int64]
    places: NDArray[np.int64]
    failed: tuple[str, ...]
    notices: Mapping[str, tuple[Notice, ...]]


@dataclass(frozen=True)
class _Composite:
    key: str
    image: NDArray[np.uint8]
    foreground: Foreground


def draw_crossing(
    foregrounds: Foregrounds, backgrounds: Backgrounds, *, objects: int, scenes: int, resolution: int, seed: int
) -> Crossing:
    """Draw half of ``objects`` from each class and half of ``scenes`` from each place, and read the backgrounds.

    Fewer where a class or place has fewer, then of both equally many. Backgrounds stay in memory, shrunk where their
    short side is more than twice ``resolution``. ClippyError where fewer than two of a class or place are left.
    """
    by_class = [
        [index for index, file in enumerate(foregrounds.files) if file.class_index == class_index]
        for class_index in (0, 1)
    ]
    drawn = _drawn(by_class, objects, np.random.default_rng([seed, 0]))
    _require(f"{foregrounds.folder}: objects", foregrounds.classes, [len(of_class) for of_class in drawn])
    _warn_if_fewer(foregrounds.classes, by_class, objects, "objects")
    _warn_if_fewer(backgrounds.places, backgrounds.files, scenes, "backgrounds")
    read: list[BackgroundPhoto] = []
    failed: list[str] = []
    for place, names in enumerate(_drawn(backgrounds.files, scenes, np.random.default_rng([seed, 1]))):
        for name in names:
            notices = Notices()
            try:
                image = read_image(backgrounds.folder / name, notices=notices)
                read.append(BackgroundPhoto(name, _shrunk(image, 2 * resolution), place, tuple(notices)))
            except ClippyError as error:
                failed.append(error.message)
    counts = [sum(photo.place == place for photo in read) for place in (0, 1)]
    _require(f"{backgrounds.folder}: backgrounds", backgrounds.places, counts, failed)
    return Crossing(foregrounds, tuple(drawn[0] + drawn[1]), tuple(read), tuple(failed))


def embed_crossing(
    model: VisionLanguageModel,
    crossing: Crossing,
    *,
    resolution: int,
    batch_size: int = 16,
    workers: int = 2,
    on_image: Callable[[], object] = lambda: None,
) -> CrossedEmbeddings:
    """Embed every composite, taken whole at short side ``resolution`` in pixels, by both readouts.

    ``pooled`` is the image's embedding; ``bird patches`` the mean of the unit embeddings of :func:`object_patches`,
    brought back to unit length. An object of which a composite fails is left out. Memory holds one batch of patch
    embeddings. ClippyError where fewer than two objects of a class are left.
    """
    patch_size = model.preprocess.patch_size
    number = len(crossing.backgrounds)
    keys = [(index, background) for index in crossing.objects for background in range(number)]
    # All composites of an object follow each other, so that its photo is decoded once a thread at most.
    read_object = lru_cache(maxsize=workers + 1)(crossing.foregrounds.read)

    def read(key: tuple[int, int]) -> _Composite:
        foreground, background = read_object(key[0]), crossing.backgrounds[key[1]]
        pixels = compose(foreground.image, foreground.mask, background.image)
        return _Composite(f"{foreground.key} on {background.name}", pixels, foreground)

    rows: dict[int, list[Tensor]] = {}
    failed: dict[int, str] = {}
    noted: dict[str, tuple[Notice, ...]] = {}
    results = encode_images(
        keys,
        read,
        partial(_encode, model),
        patch_size=patch_size,
        resolution=resolution,
        batch_size=batch_size,
        workers=workers,
    )
    for (index, _), result in zip(keys, results, strict=True):
        if isinstance(result, Failed):
            failed.setdefault(index, result.error.message)
        else:
            foreground = result.sample.foreground
            noted[foreground.key] = foreground.notices
            height_in, width_in = foreground.mask.shape
            height, width = dense_size(height_in, width_in, resolution, patch_size)
            inside = object_patches(foreground.mask, height // patch_size, width // patch_size)
            pooled, patches = result.output[0], result.output[1:][inside.flatten()]  # (D,), (patches of the object,D)
            rows.setdefault(index, []).append(torch.stack([pooled, F.normalize(patches.mean(dim=0), dim=0)]))
        on_image()
    whole = [index for index in crossing.objects if index not in failed]
    classes = np.array([crossing.foregrounds.files[index].class_index for index in whole], dtype=np.int64)
    _require(
        f"{crossing.foregrounds.folder}: objects",
        crossing.foregrounds.classes,
        [int(np.sum(classes == class_index)) for class_index in (0, 1)],
        list(failed.values()),
    )
    both = torch.stack([torch.stack(rows[index]) for index in whole]).numpy()  # (B,P,2,D)
    return CrossedEmbeddings(
        {readout: both[:, :, column] for column, readout in enumerate(ANALYSED_READOUTS)},
        classes,
        np.array([background.place for background in crossing.backgrounds], dtype=np.int64),
        tuple(failed.values()),
        noted,
    )


def object_patches(mask: Mask, h: int, w: int) -> Tensor:
    """Mask (H,W), bool or opacity 0 to 255 -> (h,w) bool: patches that the object covers to half or more by area.

    Where it covers none so far, the one that it covers most, of equals the first.
    """
    opacity = torch.from_numpy(mask.astype(np.float32) / (1.0 if mask.dtype == np.bool_ else 255.0))
    covered = F.interpolate(opacity[None, None], size=(h, w), mode="area")[0, 0]  # (1,1,H,W) -> (h,w)
    inside = covered >= _COVERED
    if not bool(inside.any()):
        inside.view(-1)[covered.argmax()] = True
    return inside


def _encode(model: VisionLanguageModel, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """B images -> (B,1+h*w,D) on the CPU: the image's embedding, then those of its patches.

    Patches that are narrower than the image's vector get zeros behind them, which change no distance or variance.
    """
    pixels = model.preprocess.normalize(to_tensor(images).to(model.device))
    pooled = model.embed_images(pixels)[:, None].float()  # (B,1,D)
    patches = model.embed_patches(pixels).flatten(1, 2).float()  # (B,h,w,D) -> (B,h*w,D)
    return torch.cat([pooled, F.pad(patches, (0, pooled.shape[-1] - patches.shape[-1]))], dim=1).cpu()


def _drawn(pools: Sequence[Sequence[_Item]], total: int, rng: np.random.Generator) -> list[list[_Item]]:
    """As many of each pool as the smallest allows, at most half of ``total``."""
    each = min(total // 2, *map(len, pools))
    return [[pool[index] for index in sorted(rng.permutation(len(pool))[:each])] for pool in pools]


def _warn_if_fewer(names: Sequence[str], pools: Sequence[Sequence[_Item]], total: int, what: str) -> None:
    """Warn where there are fewer than asked for."""
    fewest = min(map(len, pools))
    if fewest < total // 2:
        there = ", ".join(f"{len(pool)} {name}" for name, pool in zip(names, pools, strict=True))
        _log.warning("%d %s are taken, not %d, as many of each kind: there are %s", 2 * fewest, what, total, there)


def _require(what: str, names: Sequence[str], counts: Sequence[int], failed: Sequence[str] = ()) -> None:
    if min(counts) >= _FEWEST:
        return
    there = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
    reasons = "".join(f"\n{message}" for message in failed[:5])
    raise ClippyError(
        f"{what}: at least {_FEWEST} of each kind are needed, {there} could be used{reasons}",
        "Add some, mend those that cannot be read, or draw more of them.",
    )


def _shrunk(image: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)
