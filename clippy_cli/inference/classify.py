"""Zero-shot classification: one score for each image and label, as a probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.labels import Vocabulary
from clippy_cli.inference.features import model_input
from clippy_cli.inference.segment import Entries
from clippy_cli.model.base import VisionLanguageModel


@dataclass(frozen=True)
class Guess:
    """One label for an image: softmax probability in [0, 1] among all labels, and the model's score in [-1, 1]."""

    label: str
    probability: float
    score: float


def image_scores(model: VisionLanguageModel, texts: Tensor, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """(K,D) text embeddings, B images -> (B,K) float32 scores in [-1, 1] on the CPU.

    Images are (H,W,3) uint8 of one size, sides multiples of the patch.
    """
    return model.score_images(model_input(model, images), texts).float().cpu()


def rank_labels(scores: Tensor, vocabulary: Vocabulary, *, logit_scale: float, top_k: int) -> list[Guess]:
    """(K,) scores of ``vocabulary.texts`` -> the best ``top_k`` labels (all, where there are fewer), best first.

    Synonyms are merged by their maximum; equal scores keep the order of the labels.
    """
    merged = Entries.of_vocabulary(vocabulary).merge(scores)  # (L,)
    probabilities = (merged * logit_scale).softmax(dim=0)
    order = merged.argsort(descending=True, stable=True)[:top_k].tolist()
    return [Guess(vocabulary.labels[i].name, float(probabilities[i]), float(merged[i])) for i in order]
