"""The contrastive loss over a batch of image-caption pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from clippy_cli.model.clippy import Clippy


def contrastive_loss(scores: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of (B,B) image-text scores in [-1, 1], matching pairs on the diagonal.

    The mean of image-to-text and text-to-image cross-entropy of ``logit_scale * scores`` (CLIP, arXiv 2103.00020,
    figure 3), for scores of any origin.
    """
    logits = logit_scale * scores
    targets = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def image_text_loss(model: Clippy, tokens: Tensor, texts: Tensor) -> Tensor:
    """Loss of a batch: (B,P+N,D) image tokens and (B,D) unit texts -> scalar.

    open_clip's ClipLoss where a score is a dot product of pooled vectors; where it is not (``lse``), the same loss
    over the model's own scores.
    """
    scale = model.log_logit_scale.exp()
    if model.scores_are_dot_products:
        loss: Tensor = ClipLoss()(model.pool(tokens), texts, scale)
        return loss
    return contrastive_loss(model.score_tokens(tokens, texts), scale)
