"""What the trunk's own classifier sees in an image, taught to the patches through the names of its classes.

A supervised trunk knows 1000 classes that the captions of a small set hardly mention. Its classifier is not needed at
inference and is thrown away; before that, its answers are soft captions of every training image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.model.classifier import read_classifier
from clippy_cli.model.clippy import Clippy
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.loader import Batch
from clippy_cli.training.loss import Loss, LossOfBatch, scores_of


def class_loss(
    images: Tensor, logits: Tensor, texts: Tensor, scale: Tensor, *, lse_scale: float | None = None
) -> Tensor:
    """Mean cross-entropy of the scores of class names against a classifier's answers (distillation, arXiv 1503.02531).

    (B,D) unit images, or (B,K,D) unit patches under lse; (B,C) logits of the classifier; (C,D) unit texts.
    """
    scores = scale * scores_of(images, texts, lse_scale)  # (B,C)
    return -(logits.softmax(dim=1) * scores.log_softmax(dim=1)).sum(dim=1).mean()


@dataclass(frozen=True)
class ClassesTerm:
    """What is added to the contrastive loss of a batch.

    Attributes:
        classifier: from the class token of the trunk's last block to C logits; it does not learn.
        texts: (C,D) unit embeddings of the classes' names in the model's prompts; the text tower is frozen.
    """

    model: Clippy
    classifier: nn.Linear
    texts: Tensor
    weight: float
    lse_scale: float | None

    def added_to(self, loss: LossOfBatch, batch: Batch) -> LossOfBatch:
        """``loss`` with this term for ``batch``, whose features are stored ones: (B,P+K,F), class token first."""
        tower = self.model.image
        assert batch.features is not None
        class_tokens = tower.block_features(batch.features[:, :1], max(tower.blocks))[:, 0]  # (B,F/blocks)
        with torch.no_grad():
            logits = self.classifier(class_tokens.to(self.texts))

        def both(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Loss:
            result = loss(images, texts, scale, bias)
            term = class_loss(images, logits, self.texts, scale, lse_scale=self.lse_scale)
            return replace(result, value=result.value + self.weight * term)

        return both


def classes_term(model: Clippy, recipe: Recipe) -> ClassesTerm:
    """The term for a model whose trunk is frozen; ClippyError where its weights come without a classifier."""
    from open_clip import IMAGENET_CLASSNAMES

    classifier = read_classifier(model.image, recipe.model.image.init).to(model.device)
    model.eval()
    texts = prompt_embeddings(model, IMAGENET_CLASSNAMES, resolve_templates(model.defaults.templates))
    return ClassesTerm(model, classifier, texts, recipe.train.classes.weight, model.lse_scale)
