"""Retrieval both ways on a set of captioned images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from clippy_cli.data.benchmarks.captioned import CaptionedSet
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.retrieval import ranks_before
from clippy_cli.evaluation.protocol import Settings
from clippy_cli.evaluation.result import ImageRecord
from clippy_cli.evaluation.run import EncoderClock, Indexed, Measured, Options, Progress, rates
from clippy_cli.inference.classify import image_scores
from clippy_cli.inference.features import Failed, encode_images
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.processes import Processes

RECALLS = (1, 5, 10)


def measure_retrieval(
    model: VisionLanguageModel,
    images: CaptionedSet,
    settings: Settings,
    options: Options,
    processes: Processes,
    progress: Progress,
) -> Measured:
    """Score every image with every caption; all processes return the same.

    Ranks need all scores, so an interrupted measurement starts again. An image that cannot be read takes its captions
    along.
    """
    total = len(images) if options.limit is None else min(options.limit, len(images))
    captions: dict[int, tuple[str, ...]] = {}
    errors: dict[int, str] = {}
    for index in range(total):
        try:
            captions[index] = images.captions(index)
        except ClippyError as error:
            errors[index] = error.message
    texts = model.embed_texts([text for own in captions.values() for text in own]).float()  # (T,D)
    blocks = [range(start, min(start + options.batch_size, total)) for start in range(0, total, options.batch_size)]
    mine = [index for block in processes.share(blocks) for index in block if index in captions]
    clock = EncoderClock(model.device)
    rows: dict[int, Tensor] = {}
    progress.start(0, len(mine))
    begun = time.perf_counter()
    results = encode_images(
        mine,
        lambda index: Indexed(index, images.read(index)),
        clock.timed(partial(image_scores, model, texts)),
        patch_size=model.preprocess.patch_size,
        resolution=settings.resolution,
        batch_size=options.batch_size,
        workers=options.workers,
        crop=True,
    )
    for result in results:
        if isinstance(result, Failed):
            errors[result.key] = result.error.message
        else:
            rows[result.sample.index] = result.output
        progress.advance()
    seconds = time.perf_counter() - begun
    parts = processes.gather((rows, errors, seconds, clock.seconds))
    for part_rows, part_errors, _, _ in parts:
        rows |= part_rows
        errors |= part_errors
    share, rate = rates([(len(part[0]), part[2], part[3]) for part in parts])
    records = _records(images, total, captions, rows, errors)
    return Measured({"retrieve": records}, max(part[2] for part in parts), share, rate)


def _records(
    images: CaptionedSet,
    total: int,
    captions: Mapping[int, tuple[str, ...]],
    rows: Mapping[int, Tensor],
    errors: Mapping[int, str],
) -> list[ImageRecord]:
    """Ranks among the images that could be read, and their captions alone."""
    counted = sorted(rows)
    columns = torch.tensor([index for index, own in captions.items() for _ in own])  # (T,) image of each caption
    keep = torch.isin(columns, torch.tensor(counted, dtype=columns.dtype))
    owner = torch.searchsorted(torch.tensor(counted, dtype=columns.dtype), columns[keep])
    scores = torch.stack([rows[index] for index in counted])[:, keep] if counted else torch.zeros(0, 0)
    captions_before, images_before = ranks_before(scores, owner)
    found: dict[int, dict[str, float | None]] = {}
    for place, index in enumerate(counted):
        own = images_before[owner == place]
        found[index] = {f"image_to_text_r{k}": float(captions_before[place] < k) for k in RECALLS}
        found[index] |= {f"text_to_image_r{k}": float((own < k).double().mean()) for k in RECALLS}
        found[index]["captions"] = float(len(own))
    return [
        ImageRecord(index=index, key=images.key(index), scores=found.get(index, {}), error=errors.get(index))
        for index in range(total)
    ]
