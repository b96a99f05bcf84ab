from __future__ import annotations

import math

import pytest
import torch

from clippy_cli.model.build import build_model
from clippy_cli.training.loss import contrastive_loss, image_text_loss
from clippy_cli.training.run import model_config


def plain_loss(scores: list[list[float]], scale: float) -> float:
    """Cross-entropy of rows and of columns, written out."""
    size, total = len(scores), 0.0
    for i in range(size):
        total -= scale * scores[i][i] - math.log(sum(math.exp(scale * scores[i][j]) for j in range(size)))
        total -= scale * scores[i][i] - math.log(sum(math.exp(scale * scores[j][i]) for j in range(size)))
    return total / (2 * size)


@pytest.mark.parametrize("pooling", ["max", "avg", "cls", "lse"])
def test_loss_of_every_pooling_is_the_written_out_loss_of_the_models_scores(tiny, pooling: str) -> None:
    model = build_model(model_config(tiny(f"model.pooling={pooling}")), seed=2)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 17, 16, generator=generator)
    texts = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator), dim=-1)
    with torch.no_grad():
        scores, scale = model.score_tokens(tokens, texts).tolist(), model.log_logit_scale.exp().item()
    expected = plain_loss(scores, scale)
    assert image_text_loss(model, tokens, texts).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_reaches_the_scale_and_pulls_pairs_together() -> None:
    scores = torch.zeros(3, 3, requires_grad=True)
    scale = torch.tensor(10.0, requires_grad=True)
    contrastive_loss(scores, scale).backward()
    assert (scores.grad.diag() < 0).all() and scores.grad.sum().abs() < 1e-6
    assert scale.grad is not None
