"""Top-down grouping (arXiv 2210.09996, section 3.5): patch embeddings x text embeddings -> a label for each pixel.

There is one path, for the commands, Python, the demo and the evaluation alike:

    patches   (h,w,D) unit embeddings of one photo
    scores    (E,h,w) cosine of each patch with each entry: the synonyms of a label merged by their maximum
    rule      upsample; the highest entry wins a pixel; its probability is a softmax over the entries; probabilities
              are refined along the photo's edges, if wanted; what is below a threshold, or too small an area, falls
    codes     (H,W) the code that the winning entry paints
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.labels import Vocabulary
from clippy_cli.inference.choices import Competition, Refinement
from clippy_cli.inference.class_map import class_map
from clippy_cli.inference.label_map import UNLABELLED, LabelMap, paint, scored_map
from clippy_cli.inference.refine.refinement import refine
from clippy_cli.inference.regions import recount, vote
from clippy_cli.stages import REFINE, stage


class ScoreKind(StrEnum):
    """What scores and thresholds mean: a softmax probability among all entries, or the cosine of the only one."""

    PROBABILITY = "probability"
    COSINE = "cosine"


@dataclass(frozen=True)
class Entries:
    """What competes for a pixel: E entries, each of one or several texts.

    Attributes:
        texts: the K texts, those of one entry side by side.
        sizes: how many texts each of the E entries has.
        codes: what each entry paints; several may paint one code.
    """

    texts: tuple[str, ...]
    sizes: tuple[int, ...]
    codes: tuple[int, ...]

    @classmethod
    def of(cls, groups: Sequence[tuple[Sequence[str], int]], competition: Competition = Competition.ENTRIES) -> Entries:
        """One entry for each group of synonyms and its code; one for each text where ``competition`` is texts."""
        pairs = [(word, code) for words, code in groups for word in words]
        if competition is Competition.TEXTS:
            return cls(tuple(word for word, _ in pairs), (1,) * len(pairs), tuple(code for _, code in pairs))
        sizes, codes = tuple(len(words) for words, _ in groups), tuple(code for _, code in groups)
        return cls(tuple(word for word, _ in pairs), sizes, codes)

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary) -> Entries:
        """The labels, which paint 1 to L, and the background words, which leave a pixel unlabelled."""
        labels = [(label.synonyms, code) for code, label in enumerate(vocabulary.labels, start=1)]
        return cls.of([*labels, *((label.synonyms, UNLABELLED) for label in vocabulary.background)])

    def merge(self, scores: Tensor) -> Tensor:
        """(K,...) scores of the texts -> (E,...): the maximum over the synonyms of each entry."""
        if len(self.sizes) == len(self.texts):
            return scores
        return torch.stack([synonyms.amax(dim=0) for synonyms in torch.split(scores, list(self.sizes))])


@dataclass(frozen=True)
class Rule:
    """From scores of entries to codes of pixels.

    Attributes:
        logit_scale: factor of the cosines before the softmax over entries.
        threshold: pixels whose winner scores below this get ``fallback``; None keeps all.
        min_area: codes that win less than this share in [0, 1] of the pixels that are not ``fallback``'s lose them to
            the next best entry; None keeps all. (As SCLIP's public code does on VOC21.)
        fallback: the code of pixels that no entry gets: unlabelled, or a set's background class.
        refine: how probabilities are refined before the highest is taken; None for not at all.
    """

    logit_scale: float
    threshold: float | None = None
    min_area: float | None = None
    fallback: int = UNLABELLED
    refine: Refinement | None = None


class Segmenter:
    """Segments any number of photos by the same words and rule; the text side is done once.

    Args:
        texts: (K,D) unit embeddings of ``entries.texts``.
        entries: what competes for pixels, and what each paints.
        rule: how a pixel's code follows from the scores.
    """

    def __init__(self, texts: Tensor, entries: Entries, rule: Rule) -> None:
        self._texts, self.entries, self.rule = texts.float(), entries, rule
        self._count = max(*entries.codes, rule.fallback) + 1

    @property
    def score_kind(self) -> ScoreKind:
        """Probability; where there is only one entry, that would be 1 everywhere, so its cosine is taken."""
        return ScoreKind.PROBABILITY if len(self.entries.codes) > 1 else ScoreKind.COSINE

    def text_scores(self, patches: Tensor) -> Tensor:
        """(h,w,D) unit patches -> (K,h,w) cosines in [-1, 1] of each text, on the patches' device."""
        return torch.einsum("hwd,kd->khw", patches, self._texts.to(patches))

    def vector_scores(self, vectors: Tensor) -> Tensor:
        """(V,D) unit vectors -> (V,E) cosines in [-1, 1] with each entry."""
        return self.entries.merge((vectors @ self._texts.to(vectors).T).T).T

    def scores(self, patches: Tensor) -> Tensor:
        """(h,w,D) unit patches -> (E,h,w) cosines in [-1, 1] of each entry."""
        return self.entries.merge(self.text_scores(patches))

    def codes(self, scores: Tensor, image: NDArray[np.uint8], height: int, width: int) -> Tensor:
        """(E,h,w) scores, their photo (H,W,3) -> the code (height,width) of each pixel, uint8 or int16, same device."""
        if self._winner_decides:
            return class_map(scores, self.entries.codes, height, width)
        return torch.from_numpy(self._decided(scores, image, height, width).codes).to(scores.device)

    def label_map(self, scores: Tensor, image: NDArray[np.uint8], height: int, width: int) -> LabelMap:
        """As :meth:`codes`, pixel for pixel, and how many pixels each code has and how they score."""
        if not self._winner_decides:
            return self._decided(scores, image, height, width)
        codes = class_map(scores, self.entries.codes, height, width)
        return scored_map(self._logits(scores), codes, self._count, softmax=self._softmax)

    def vote(self, scores: Tensor, codes: NDArray[np.int16], regions: NDArray[np.int32]) -> NDArray[np.int16]:
        """(H,W) codes after each of the ``regions`` (H,W), from 1, took the code of most of its pixels."""
        return vote(codes, regions, scores, self.entries.codes)

    def vote_map(self, scores: Tensor, label_map: LabelMap, regions: NDArray[np.int32]) -> LabelMap:
        """As :meth:`vote`, counted again; scores stay those of the labels before the vote."""
        return recount(label_map, self.vote(scores, label_map.codes, regions))

    @property
    def _winner_decides(self) -> bool:
        rule = self.rule
        return rule.threshold is None and rule.min_area is None and rule.refine is None

    @property
    def _softmax(self) -> bool:
        return self.score_kind is ScoreKind.PROBABILITY

    def _logits(self, scores: Tensor) -> Tensor:
        return scores * self.rule.logit_scale if self._softmax else scores

    def _decided(self, scores: Tensor, image: NDArray[np.uint8], height: int, width: int) -> LabelMap:
        rule, maps, codes, softmax = self.rule, self._logits(scores), self.entries.codes, self._softmax
        if rule.refine is not None:
            with stage(REFINE):
                refined = refine(maps, codes, image, rule.refine, softmax=softmax)
            maps, codes, softmax = refined.probabilities, refined.classes, False
        barred = self._too_small(maps, codes, height, width)
        if barred is not None and bool(barred.all()):
            empty = np.full((height, width), rule.fallback, np.int16)
            pixels = np.bincount([rule.fallback], weights=[height * width], minlength=self._count).astype(np.int64)
            return LabelMap(empty, pixels, np.full(self._count, np.nan))
        return paint(
            maps,
            height,
            width,
            codes,
            softmax=softmax,
            threshold=rule.threshold,
            fallback=rule.fallback,
            barred=barred,
            count=self._count,
        )

    def _too_small(self, maps: Tensor, codes: Sequence[int], height: int, width: int) -> Tensor | None:
        """(K,) bool: the maps whose code wins no more than ``min_area`` of the pixels that are not the fallback's."""
        rule = self.rule
        if rule.min_area is None:
            return None
        areas = paint(maps, height, width, codes, count=self._count).pixels
        areas[rule.fallback] = 0
        small = areas <= rule.min_area * areas.sum()
        small[rule.fallback] = False
        return torch.from_numpy(small[list(codes)]).to(maps.device)
