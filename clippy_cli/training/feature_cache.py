"""The frozen towers' features, computed once and read back for every epoch.

Tokens are stored in float16 for each image, and again for its mirror image where the recipe flips. With token
sub-sampling a part of the stored tokens is used; unlike in a live trunk, attention has then seen all of them.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clippy_cli.data.captions import CaptionSource
from clippy_cli.data.identity import DataIdentity, identify
from clippy_cli.data.streams import Position, StreamSource
from clippy_cli.data.transforms import draw_flip
from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.text_batches import TEXT_BATCH
from clippy_cli.processes import Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.events import CacheProgress, OnEvent, ShouldStop, Stop, StopRequested
from clippy_cli.training.forward import autocast
from clippy_cli.training.loader import Batch, ImageFeed, Tokenize, spread_evenly
from clippy_cli.training.order import (
    PLAIN,
    BatchShare,
    Draw,
    PlainBatches,
    Steps,
    keep_indices,
    sample_generator,
    substitute_generator,
)
from clippy_cli.training.step_shapes import StepShapes
from clippy_cli.training.stored_features import is_of, read_samples, stored, write_json, write_samples

_log = logging.getLogger(__name__)

FORMAT = 2
BATCH = 64


class CachedFeed:
    """Batches of stored features, with the captions, flips and (on the CPU) kept tokens of a run without the cache."""

    def __init__(self, folder: Path, recipe: Recipe, tokenize: Tokenize, *, num_prefix: int, flip: bool) -> None:
        self._images, self._texts, samples = stored(folder)
        self._captions = [() if isinstance(sample, str) else sample for sample in samples]
        self._broken = {index: sample for index, sample in enumerate(samples) if isinstance(sample, str)}
        self._first_text = np.concatenate([[0], np.cumsum([len(captions) for captions in self._captions])])
        self._num_prefix, self._flip = num_prefix, flip
        self._tokenize, self._seed = tokenize, recipe.seed

    def __len__(self) -> int:
        return len(self._images)

    def captions(
        self, processes: Processes, should_stop: ShouldStop, on_samples: Callable[[int], None]
    ) -> Sequence[tuple[str, ...]]:
        return self._captions

    def training(self, part: BatchShare, first: int, shapes: StepShapes, position: Position) -> Iterator[Batch]:
        for step, draws in enumerate(Steps(len(self), part, self._seed, first, shapes), start=first):
            yield self._gather(draws, self._tokens(part, step, shapes.at(step).drop_rate))

    def plain(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        for draws in PlainBatches(indices, batch_size, 0):
            yield self._gather(draws, None)

    def spread(self, count: int, part: BatchShare) -> NDArray[np.int64]:
        return spread_evenly(count, len(self), part)

    def _gather(self, draws: list[Draw], tokens: NDArray[np.int64] | None) -> Batch:
        broken: dict[int, str] = {}
        chosen: list[tuple[int, int, int]] = []  # sample, caption, view
        for draw in draws:
            good: Draw | None = draw
            if draw.sample in self._broken:
                broken[draw.sample] = self._broken[draw.sample]
                good = None if draw.epoch == PLAIN else self._substitute(draw)
            if good is not None:
                chosen.append(self._choose(good))
        samples, captions, views = np.array(chosen, dtype=np.int64).reshape(-1, 3).T
        everything = np.arange(self._images.shape[2])[None]
        features = self._images[samples[:, None], views[:, None], everything if tokens is None else tokens]  # (B,P+K,F)
        texts = None if self._texts is None else torch.from_numpy(self._texts[self._first_text[samples] + captions])
        written: list[tuple[str, ...]] = [(self._captions[sample][caption],) for sample, caption, _ in chosen]
        return Batch(
            indices=samples.tolist(),
            captions=written,
            features=torch.from_numpy(features),
            token_ids=self._tokenize([texts_of[0] for texts_of in written]) if texts is None and written else None,
            text_features=texts,
            broken=broken,
        )

    def _choose(self, draw: Draw) -> tuple[int, int, int]:
        """Sample, caption and view of a draw; of a plain one the first of each."""
        if draw.epoch == PLAIN:
            return draw.sample, 0, 0
        rng = sample_generator(self._seed, draw)
        caption = int(rng.integers(len(self._captions[draw.sample])))
        return draw.sample, caption, int(self._flip and draw_flip(rng))

    def _substitute(self, draw: Draw) -> Draw:
        rng = substitute_generator(self._seed, draw)
        while True:
            other = int(rng.integers(len(self)))
            if other not in self._broken:
                return draw._replace(sample=other)

    def _tokens(self, part: BatchShare, step: int, drop_rate: float) -> NDArray[np.int64] | None:
        """(B,P+K) tokens to read, None where all are; only what a step keeps leaves the disk."""
        if drop_rate == 0.0:
            return None
        num_patches = self._images.shape[2] - self._num_prefix
        device = torch.device("cpu")
        drawn = keep_indices(part.batch_size, num_patches, drop_rate, seed=self._seed, step=step, device=device)
        assert drawn is not None
        keep = drawn[part.rows].numpy()
        prefix = np.broadcast_to(np.arange(self._num_prefix)[None], (len(keep), self._num_prefix))
        return np.concatenate([prefix, keep + self._num_prefix], axis=1)


def build_cache(
    folder: Path,
    model: Clippy,
    images: ImageFeed,
    recipe: Recipe,
    on_event: OnEvent,
    should_stop: ShouldStop,
    *,
    flip: bool,
) -> None:
    """Fill the cache in ``folder`` where it is absent or belongs to other data or weights, which is logged.

    A build that was interrupted goes on where it stopped. ClippyError where the disk is too small.
    """
    assert not isinstance(images.source, StreamSource)  # the recipe refuses it
    identity = identify(images.source)
    fingerprint = _fingerprint(model, images.source, identity, recipe, flip)
    if not is_of(folder, fingerprint, identity):
        shutil.rmtree(folder, ignore_errors=True)
        partial = folder.with_name(folder.name + ".partial")
        if not is_of(partial, fingerprint, identity):
            shutil.rmtree(partial, ignore_errors=True)
        _build(partial, fingerprint, identity, model, images, recipe, on_event, should_stop, views=1 + flip)
        partial.replace(folder)
    _log.info("features of the frozen image tower: %s", folder)


def _build(
    folder: Path,
    fingerprint: dict[str, Any],
    identity: DataIdentity,
    model: Clippy,
    feed: ImageFeed,
    recipe: Recipe,
    on_event: OnEvent,
    should_stop: ShouldStop,
    *,
    views: int,
) -> None:
    h, w = model.image.grid_size(model.preprocess.resolution, model.preprocess.resolution)
    shape = (len(feed), views, model.image.num_prefix_tokens + h * w, model.image.feature_dim)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_free_space(folder.parent, int(np.prod(shape)) * 2)
        folder.mkdir()
        np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.float16, shape=shape).flush()
        np.save(folder / "identity.npy", identity.hashes)
        write_json(folder / "fingerprint.json", fingerprint)
    array = np.lib.format.open_memmap(folder / "images.npy", mode="r+")
    samples = read_samples(folder)
    samples = samples[: len(samples) // BATCH * BATCH]
    write_samples(folder, samples, "w")
    model.eval()
    for batch in feed.plain(np.arange(len(samples), len(feed)), BATCH):
        if stop := Stop(should_stop()):
            raise StopRequested(stop)
        if len(batch):
            array[batch.indices] = _views(model, batch, views, recipe.train.precision)
        described = dict(zip(batch.indices, batch.captions, strict=True)) | batch.broken
        new = [described[index] for index in sorted(described)]
        write_samples(folder, new, "a")  # after the features: what is listed is there
        samples += new
        on_event(CacheProgress("images", len(samples), len(feed)))
    array.flush()
    if all(isinstance(sample, str) for sample in samples):
        raise ClippyError(f"All {len(samples)} samples are broken. The first: {samples[0]}", "Check data.source.")
    if recipe.model.text.freeze != "none":
        captions = [caption for sample in samples if not isinstance(sample, str) for caption in sample]
        np.save(folder / "texts.npy", _text_features(model, captions, recipe.train.precision, on_event, should_stop))


@torch.no_grad()
def _views(model: Clippy, batch: Batch, views: int, precision: str) -> NDArray[np.float16]:
    """(B,V,P+N,F) float16 tokens of the images and, for V = 2, of their mirror images."""
    assert batch.images is not None
    stacked = []
    for images in (batch.images, batch.images.flip(-1))[:views]:
        with autocast(precision, model.device):
            stacked.append(model.image.features(model.preprocess.normalize(images.to(model.device))))
    features: NDArray[np.float16] = torch.stack(stacked, dim=1).to("cpu", torch.float16).numpy()
    return features


@torch.no_grad()
def _text_features(
    model: Clippy, captions: list[str], precision: str, on_event: OnEvent, should_stop: ShouldStop
) -> NDArray[np.float32]:
    """(T,F) features of the frozen encoder; texts of like length go together, which saves padding."""
    result = np.empty((len(captions), model.text.feature_dim), np.float32)
    by_length = sorted(range(len(captions)), key=lambda row: len(captions[row]))
    for start in range(0, len(captions), TEXT_BATCH):
        if stop := Stop(should_stop()):
            raise StopRequested(stop)
        rows = by_length[start : start + TEXT_BATCH]
        with autocast(precision, model.device):
            features = model.text.features(model.text.tokenize([captions[row] for row in rows]).to(model.device))
        result[rows] = features.float().cpu().numpy()
        on_event(CacheProgress("captions", start + len(rows), len(captions)))
    return result


def _fingerprint(
    model: Clippy, source: CaptionSource, identity: DataIdentity, recipe: Recipe, flip: bool
) -> dict[str, Any]:
    """What the stored features depend on."""
    return {
        "format": FORMAT,
        "source": source.describe(),
        "samples": len(source),
        "files": identity.digest(),
        "resolution": model.preprocess.resolution,
        "flip": flip,
        "precision": recipe.train.precision,
        "pixels": [list(model.preprocess.mean), list(model.preprocess.std)],
        "positions": model.positions,
        "blocks": list(model.image.blocks),
        "trunk": _digest(model.image.trunk),
        "encoder": None if recipe.model.text.freeze == "none" else _digest(model.text.encoder),
    }


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_free_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise ClippyError(
            f"The feature cache needs {needed / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB are free.",
            "Free space, write elsewhere (--set output=FOLDER), or train without it: --set data.cache_features=false",
        )
