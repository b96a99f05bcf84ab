"""What a recipe adds to the contrastive loss."""

from __future__ import annotations

from typing import Protocol

from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.classes import classes_term
from clippy_cli.training.feature_cache import CachedFeed
from clippy_cli.training.loader import Batch
from clippy_cli.training.loss import LossOfBatch
from clippy_cli.training.words import words_term


class Term(Protocol):
    """A part of the loss beside the contrastive one."""

    def added_to(self, loss: LossOfBatch, batch: Batch) -> LossOfBatch:
        """``loss`` and this term, weighted, of ``batch``, whose embeddings come in its order."""
        ...


def extra_terms(model: Clippy, feed: CachedFeed, recipe: Recipe, processes: Processes) -> tuple[Term, ...]:
    """The terms with a weight in ``recipe.train``; both towers' texts and features are frozen and stored.

    ClippyError where no word is frequent enough, or the trunk's weights come without a classifier.
    """
    terms: list[Term] = []
    if recipe.train.words.weight:
        terms.append(words_term(model, feed.captions, recipe.train.words, processes))
    if recipe.train.classes.weight:
        terms.append(classes_term(model, recipe))
    return tuple(terms)
