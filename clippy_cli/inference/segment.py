"""Top-down grouping (arXiv 2210.09996, section 3.5): patch embeddings x text embeddings -> a label for each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.labels import Vocabulary
from clippy_cli.inference.label_map import UNLABELLED, LabelMap, paint
from clippy_cli.inference.refine.refinement import Method, refine
from clippy_cli.inference.regions import recount, vote

ScoreKind = Literal["probability", "cosine"]


@dataclass(frozen=True)
class Segmentation:
    """A segmented image.

    Attributes:
        label_map: codes 1 to L for the vocabulary's labels, 0 for background words and low scores.
        similarity: (E,h,w) float32 cosine of each patch with each of the E labels and background words.
        score_kind: what scores and threshold mean, see :func:`score_kind`.
        codes: what each of the E entries paints.
    """

    label_map: LabelMap
    similarity: Tensor
    score_kind: ScoreKind
    codes: tuple[int, ...]

    def with_regions(self, regions: NDArray[np.int32]) -> LabelMap:
        """The label map after each of the regions (H,W), from 1, took the code of most of its pixels."""
        voted = vote(self.label_map.codes, regions, self.similarity, self.codes)
        return recount(self.label_map, voted)


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
    refinement: tuple[Method, NDArray[np.uint8]] | None = None,
) -> Segmentation:
    """Label height x width pixels from (h,w,D) patches and (K,D) unit embeddings of ``vocabulary.texts``.

    Each pixel takes the entry of the highest upsampled cosine. Its score is that entry's softmax probability at
    ``logit_scale``; pixels scoring below ``threshold`` stay unlabelled. ``refinement`` is a method and the photo
    (H,W,3): probabilities are refined before the highest is taken, and the threshold is applied to the refined ones.
    """
    similarity = entry_similarity(patches, texts, vocabulary)
    kind = score_kind(vocabulary)
    codes = (*range(1, len(vocabulary.labels) + 1), *(UNLABELLED for _ in vocabulary.background))
    maps = similarity * logit_scale if kind == "probability" else similarity
    softmax = kind == "probability"
    if refinement is None:
        label_map = paint(maps, height, width, codes, softmax=softmax, threshold=threshold)
    else:
        method, image = refinement
        refined = refine(maps, codes, image, method, softmax=softmax)
        label_map = paint(refined.probabilities, height, width, refined.classes, threshold=threshold)
    return Segmentation(label_map, similarity, kind, codes)
