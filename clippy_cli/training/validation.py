"""The loss on samples that nothing is learnt from."""

from __future__ import annotations

import math

import numpy as np
import torch

from clippy_cli.processes import Processes
from clippy_cli.recipe.schema import TrainRecipe
from clippy_cli.training.forward import Embeddings, tower_inputs_in_chunks
from clippy_cli.training.loader import Feed
from clippy_cli.training.loss import ContrastiveLoss


@torch.no_grad()
def validation_loss(
    embeddings: Embeddings,
    loss: ContrastiveLoss,
    feed: Feed,
    train: TrainRecipe,
    processes: Processes,
    text_length: int | None,
) -> float:
    """Mean contrastive loss over whole batches of the training size, since it depends on that; every token kept.

    The terms that a recipe adds do not count. Each process takes every so many batches, computes their ``loss`` by
    itself, and gets the mean of all: NaN where there is none. The model has to be in evaluation mode.
    """
    size = min(train.batch_size, len(feed))
    starts = processes.share(range(0, len(feed) // size * size, size))
    wanted = np.concatenate([np.arange(start, start + size) for start in starts] or [np.empty(0, np.int64)])
    losses = []
    for batch in feed.plain(wanted.astype(np.int64), size):
        if len(batch):
            chunks = tower_inputs_in_chunks(embeddings.model, batch, None, train.chunk_size, text_length)
            outputs = [embeddings(inputs) for inputs in chunks]
            images, texts = (torch.cat([output[side] for output in outputs]) for side in (0, 1))
            losses.append(float(loss(images, texts, *outputs[-1][2:]).value))
    everyones = [value for part in processes.gather(losses) for value in part]
    return float(np.mean(everyones)) if everyones else math.nan
