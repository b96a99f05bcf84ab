"""What the trunk's own classifier sees in an image, taught to the patches through the names of its classes.

A supervised trunk knows 1000 classes that the captions of a small set hardly mention. Its classifier is not needed at
inference and is thrown away; before that, its answers are soft captions of every training image.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.model.build import load_trunk
from clippy_cli.model.classifier import read_classifier
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.forward import autocast
from clippy_cli.training.loader import Batch
from clippy_cli.training.loss import scores_of
from clippy_cli.training.terms.base import Pairs, Term, TermSetup


def class_loss(
    images: Tensor, logits: Tensor, texts: Tensor, scale: Tensor, *, lse_scale: float | None = None
) -> Tensor:
    """Mean cross-entropy of the scores of class names against a classifier's answers (distillation, arXiv 1503.02531).

    (B,D) unit images, or (B,K,D) unit patches under lse; (B,C) logits of the classifier; (C,D) unit texts.
    """
    scores = scale * scores_of(images, texts, lse_scale)  # (B,C)
    return -(logits.softmax(dim=1) * scores.log_softmax(dim=1)).sum(dim=1).mean()


class ClassesTerm(Term):
    """The classes' loss of a batch.

    A classifier reads the class token of the trunk that it came with. Of stored features that is the stored one; else
    ``tower`` looks at the whole training image once more, without gradient and without dropping tokens.

    Attributes:
        classifier: from the class token of the trunk's last block to C logits; it does not learn.
        texts: (C,D) unit embeddings of the classes' names in the model's prompts; the text tower is frozen.
    """

    def __init__(self, model: Clippy, tower: ImageTower, classifier: nn.Linear, texts: Tensor, recipe: Recipe) -> None:
        self.classifier, self.texts = classifier, texts
        self._model, self._tower = model, tower
        self._weight, self._precision = recipe.train.classes.weight, recipe.train.precision

    def loss(self, batch: Batch, pairs: Pairs) -> dict[str, Tensor]:
        logits = self.logits(batch, pairs.shape.chunk_size or len(batch))
        value = class_loss(pairs.images, logits, self.texts, pairs.scale, lse_scale=self._model.lse_scale)
        return {"classes": self._weight * value}

    @torch.no_grad()
    def logits(self, batch: Batch, at_once: int) -> Tensor:
        """(B,C) of the classifier; of images, ``at_once`` go through the trunk together."""
        tower = self._tower
        if batch.features is not None:
            prefix = batch.features[:, :1]  # (B,1,F)
        else:
            assert batch.images is not None
            parts = []
            for images in torch.split(batch.images, at_once):
                with autocast(self._precision, self._model.device):
                    pixels = self._model.preprocess.normalize(images.to(self._model.device, non_blocking=True))
                    parts.append(tower.features(pixels)[:, :1])
            prefix = torch.cat(parts)
        class_tokens = tower.block_features(prefix, max(tower.blocks))[:, 0]  # (B,F/blocks)
        logits: Tensor = self.classifier(class_tokens.to(self.texts))
        return logits


def build(setup: TermSetup) -> ClassesTerm:
    """The term, with a frozen copy of the supervised trunk where the model's own learns.

    ClippyError where the trunk's weights come without a classifier.
    """
    from open_clip import IMAGENET_CLASSNAMES

    model, recipe = setup.model, setup.recipe
    classifier = read_classifier(model.image, recipe.model.image.init).to(model.device)
    tower = model.image
    if recipe.model.image.freeze == "none":
        tower = copy.deepcopy(model.image).requires_grad_(False).eval()
        load_trunk(tower, recipe.model.image.init)  # a resumed model has moved away from these weights
    model.eval()
    texts = prompt_embeddings(model, IMAGENET_CLASSNAMES, resolve_templates(model.defaults.templates))
    return ClassesTerm(model, tower, classifier, texts, recipe)
