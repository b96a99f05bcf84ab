"""Single words of the captions as texts of their own, beside the contrastive loss.

A caption names several things at once, and most photos of a small set show the same few, such as people: a caption is
then told from others by what is rare in it, and the common things are hardly learnt. Here every frequent word is asked
for by itself, of all images: which images of the batch show it, and which of the words an image shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.processes import ALONE, Processes
from clippy_cli.recipe.terms import WordsRecipe
from clippy_cli.training.events import CaptionsRead
from clippy_cli.training.loader import Batch
from clippy_cli.training.loss import gathered, scores_of
from clippy_cli.training.terms.base import Pairs, Term, TermSetup

_WORD = re.compile(r"[^\W\d_]{2,}")


class CaptionWords:
    """The words that enough samples are about, and which sample is about which.

    A sample is about a word that at least ``min_share`` of its captions hold. Stop words (scikit-learn's English list)
    and those in ``excluded`` do not count, nor words of fewer than ``min_images`` samples.

    Attributes:
        words: V words in alphabetical order.
        frequency: (V,) share of the samples that are about each.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        *,
        min_images: int,
        min_share: float,
        excluded: Sequence[str] = (),
    ) -> None:
        ignored = ENGLISH_STOP_WORDS.union(excluded)
        of_samples = [_words_of(texts, min_share) - ignored for texts in captions]
        counts = Counter(word for words in of_samples for word in words)
        self.words = tuple(sorted(word for word, count in counts.items() if count >= min_images))
        number = {word: index for index, word in enumerate(self.words)}
        self._held = [
            np.array(sorted(number[word] for word in words if word in number), np.int32) for words in of_samples
        ]
        self.frequency = np.array([counts[word] for word in self.words]) / max(1, len(captions))

    def targets(self, samples: Sequence[int]) -> NDArray[np.bool_]:
        """(B,V): which of the words each of the B samples is about."""
        result = np.zeros((len(samples), len(self.words)), bool)
        for row, sample in enumerate(samples):
            result[row, self._held[sample]] = True
        return result


def _words_of(captions: Sequence[str], min_share: float) -> set[str]:
    counts = Counter(word for caption in captions for word in set(_WORD.findall(caption.lower())))
    return {word for word, count in counts.items() if count >= min_share * len(captions)}


def word_loss(
    images: Tensor,
    targets: Tensor,
    texts: Tensor,
    scale: Tensor,
    *,
    prior: Tensor | None = None,
    lse_scale: float | None = None,
    processes: Processes = ALONE,
) -> Tensor:
    """Mean of two cross-entropies: of the images that show a word, and of the words that an image shows.

    (B,D) unit images, or (B,K,D) unit patches under lse; (B,V) bool targets; (V,D) unit texts. Several words of an
    image and several images of a word share the target evenly. ``prior`` (V,) is added where words compete, so that a
    frequent word does not get a higher score for being frequent (logit adjustment, arXiv 2007.07314); inference leaves
    it out. Images or words without any target do not count; 0 where none has one. The mean of the values of all
    processes is that of the whole batch.
    """
    scores = scale * scores_of(images, texts, lse_scale)  # (B,V)
    by_image = scores if prior is None else scores + prior
    wanted = targets.to(scores.dtype)
    own = -(by_image.log_softmax(dim=1) * wanted).sum(dim=1) / wanted.sum(dim=1).clamp(min=1)  # (B,)
    everyones, all_wanted = gathered(scores, processes), gathered(wanted, processes)  # (G,V)
    shown = all_wanted.sum(dim=0)  # (V,)
    of_words = -(everyones.log_softmax(dim=0) * all_wanted).sum(dim=0) / shown.clamp(min=1)  # (V,)
    with_words = (all_wanted.sum(dim=1) > 0).sum().clamp(min=1)
    return (own.sum() * processes.size / with_words + of_words.sum() / (shown > 0).sum().clamp(min=1)) / 2


class WordsTerm(Term):
    """The words' loss of a batch whose samples ``words`` knows.

    Attributes:
        texts: (V,D) unit embeddings of the words in the model's prompts; the text tower is frozen.
        prior: (V,) share ``recipe.balance`` of the log frequency.
    """

    def __init__(
        self,
        words: CaptionWords,
        texts: Tensor,
        recipe: WordsRecipe,
        lse_scale: float | None,
        processes: Processes = ALONE,
    ) -> None:
        self.words, self.texts = words, texts
        self.prior = recipe.balance * torch.from_numpy(np.log(words.frequency)).to(texts)
        self._weight, self._lse_scale, self._processes = recipe.weight, lse_scale, processes

    def loss(self, batch: Batch, pairs: Pairs) -> dict[str, Tensor]:
        targets = torch.from_numpy(self.words.targets(batch.indices)).to(self.texts.device)
        value = word_loss(
            pairs.images,
            targets,
            self.texts,
            pairs.scale,
            prior=self.prior,
            lse_scale=self._lse_scale,
            processes=self._processes,
        )
        return {"words": self._weight * value}


def build(setup: TermSetup) -> WordsTerm:
    """The term over all captions of the data; words of the model's own prompts are no words of an image.

    ClippyError where no word is frequent enough.
    """
    model, recipe, processes = setup.model, setup.recipe.train.words, setup.processes
    captions = setup.feed.captions(
        processes,
        setup.should_stop,
        lambda read: setup.emit(CaptionsRead(read * processes.size, len(setup.feed))),
    )
    templates = resolve_templates(model.defaults.templates)
    excluded = [word for template in templates for word in _WORD.findall(template.lower())]
    words = CaptionWords(captions, min_images=recipe.min_images, min_share=recipe.min_share, excluded=excluded)
    if not words.words:
        raise ClippyError(
            f"train.words: no word is in the captions of {recipe.min_images} images.",
            "Lower train.words.min_images, or leave the words out: --set train.words.weight=0",
        )
    model.eval()
    texts = prompt_embeddings(model, words.words, templates)
    return WordsTerm(words, texts, recipe, model.lse_scale, processes)
