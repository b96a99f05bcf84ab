"""Zero-shot classification: one score for each image and label, as a probability."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clippy_cli.data.labels import Vocabulary
from clippy_cli.inference.segment import Entries


@dataclass(frozen=True)
class Guess:
    """One label for an image: softmax probability in [0, 1] among all labels, and the model's score in [-1, 1]."""

    label: str
    probability: float
    score: float


def rank_labels(scores: Tensor, vocabulary: Vocabulary, *, logit_scale: float, top_k: int) -> list[Guess]:
    """(K,) scores of ``vocabulary.texts`` -> the best ``top_k`` labels (all, where there are fewer), best first.

    Synonyms are merged by their maximum; equal scores keep the order of the labels.
    """
    merged = Entries.of_vocabulary(vocabulary).merge(scores)  # (L,)
    probabilities = (merged * logit_scale).softmax(dim=0)
    order = merged.argsort(descending=True, stable=True)[:top_k].tolist()
    return [Guess(vocabulary.labels[i].name, float(probabilities[i]), float(merged[i])) for i in order]
