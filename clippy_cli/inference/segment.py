"""Top-down grouping (arXiv 2210.09996, section 3.5): patch embeddings x text embeddings -> a label for each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clippy_cli.data.labels import Vocabulary
from clippy_cli.inference.label_map import UNLABELLED, LabelMap, paint

ScoreKind = Literal["probability", "cosine"]


@dataclass(frozen=True)
class Segmentation:
    """A segmented image.

    Attributes:
        label_map: codes 1 to L for the vocabulary's labels, 0 for background words and low scores.
        similarity: (E,h,w) float32 cosine of each patch with each of the E labels and background words.
        score_kind: what scores and threshold mean, see :func:`score_kind`.
    """

    label_map: LabelMap
    similarity: Tensor
    score_kind: ScoreKind


def entry_similarity(patches: Tensor, texts: Tensor, vocabulary: Vocabulary) -> Tensor:
    """(h,w,D) unit patches, (K,D) unit texts -> (E,h,w) cosines in [-1, 1], synonyms merged by their maximum.

    The E entries are the vocabulary's labels, then its background words.
    """
    cosines = (patches @ texts.T.to(patches)).permute(2, 0, 1)  # (h,w,K) -> (K,h,w)
    return merge_synonyms(cosines, vocabulary)


def merge_synonyms(scores: Tensor, vocabulary: Vocabulary) -> Tensor:
    """(K,...) scores of the vocabulary's texts -> (E,...): the maximum over the synonyms of each entry."""
    sizes = [len(label.synonyms) for label in (*vocabulary.labels, *vocabulary.background)]
    return torch.stack([synonyms.amax(dim=0) for synonyms in torch.split(scores, sizes)])


def score_kind(vocabulary: Vocabulary) -> ScoreKind:
    """Probability among all entries; where there is only one, that would be 1 everywhere, so its cosine is taken."""
    return "probability" if len(vocabulary.labels) + len(vocabulary.background) > 1 else "cosine"


def segment_patches(
    patches: Tensor,
    texts: Tensor,
    vocabulary: Vocabulary,
    height: int,
    width: int,
    *,
    logit_scale: float,
    threshold: float | None = None,
) -> Segmentation:
    """Label height x width pixels from (h,w,D) unit patches and (K,D) unit embeddings of ``vocabulary.texts``.

    Each pixel takes the entry of the highest upsampled cosine. Its score is that entry's softmax probability at
    ``logit_scale``; pixels scoring below ``threshold`` stay unlabelled.
    """
    similarity = entry_similarity(patches, texts, vocabulary)
    kind = score_kind(vocabulary)
    codes = (*range(1, len(vocabulary.labels) + 1), *(UNLABELLED for _ in vocabulary.background))
    maps = similarity * logit_scale if kind == "probability" else similarity
    label_map = paint(maps, height, width, codes, softmax=kind == "probability", threshold=threshold)
    return Segmentation(label_map, similarity, kind)
