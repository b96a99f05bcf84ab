"""What a recipe adds to the contrastive loss: one file a term, and one line for it here."""

from __future__ import annotations

from collections.abc import Callable

from clippy_cli.training.terms import classes, self_distillation, words
from clippy_cli.training.terms.base import Pairs, Term, TermSetup

__all__ = ["TERMS", "Pairs", "Term", "TermSetup", "build_terms"]

# Name of the section of ``train`` -> what builds the term; they are added in this order.
TERMS: dict[str, Callable[[TermSetup], Term]] = {
    "words": words.build,
    "classes": classes.build,
    "self_distillation": self_distillation.build,
}


def build_terms(setup: TermSetup) -> dict[str, Term]:
    """The terms whose section of ``train`` has a weight. ClippyError where one does not fit the data or the model."""
    train = setup.recipe.train
    return {name: build(setup) for name, build in TERMS.items() if getattr(train, name).weight}
