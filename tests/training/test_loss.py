from __future__ import annotations

import math

import pytest
import torch
from open_clip.loss import SigLipLoss

from clippy_cli.model.build import build_model
from clippy_cli.model.pooling import lse_scores, normalized
from clippy_cli.training import loss as losses
from clippy_cli.training.loss import ContrastiveLoss, pooled_scores
from clippy_cli.training.run import model_config


def plain_loss(scores: list[list[float]], scale: float) -> float:
    """Cross-entropy of rows and of columns, written out."""
    size, total = len(scores), 0.0
    for i in range(size):
        total -= scale * scores[i][i] - math.log(sum(math.exp(scale * scores[i][j]) for j in range(size)))
        total -= scale * scores[i][i] - math.log(sum(math.exp(scale * scores[j][i]) for j in range(size)))
    return total / (2 * size)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return normalized(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@pytest.mark.parametrize("pooling", ["max", "avg", "cls", "lse"])
def test_loss_of_every_pooling_is_the_written_out_loss_of_the_models_scores(tiny, pooling: str) -> None:
    model = build_model(model_config(tiny(f"model.pooling={pooling}")), seed=2)
    tokens, texts = torch.randn(5, 17, 16, generator=torch.Generator().manual_seed(0)), unit(5, 16, seed=1).float()
    with torch.no_grad():
        scores, scale = model.score_tokens(tokens, texts), model.log_logit_scale.exp()
        images = normalized(tokens[:, 1:]) if pooling == "lse" else model.pool(tokens)
        lse_scale = model.config.image.lse_scale if pooling == "lse" else None
        loss = ContrastiveLoss(lse_scale=lse_scale)(images, texts, scale, torch.zeros(()))
    assert loss.value.item() == pytest.approx(plain_loss(scores.tolist(), scale.item()), rel=1e-5)
    pairs = torch.arange(5)
    assert loss.image_accuracy.item() == pytest.approx((scores.argmax(dim=1) == pairs).double().mean().item())
    assert loss.text_accuracy.item() == pytest.approx((scores.argmax(dim=0) == pairs).double().mean().item())


def test_sigmoid_loss_is_open_clips() -> None:
    images, texts = unit(6, 8, seed=0), unit(6, 8, seed=1)
    scale, bias = torch.tensor(9.0, dtype=torch.float64), torch.tensor(-4.0, dtype=torch.float64)
    ours = ContrastiveLoss("sigmoid")(images, texts, scale, bias).value
    assert ours.item() == pytest.approx(SigLipLoss()(images, texts, scale, bias).item(), rel=1e-12)


def test_similarities_pooled_a_few_images_at_a_time_are_those_of_all_at_once(monkeypatch) -> None:
    def gradients(score) -> list[torch.Tensor]:
        patches, texts = unit(7, 5, 8, seed=0).requires_grad_(), unit(4, 8, seed=1).requires_grad_()
        scores = score(patches, texts, 20.0)
        (scores * unit(7, 4, seed=2)).sum().backward()
        return [scores.detach(), patches.grad, texts.grad]

    expected = gradients(lse_scores)
    monkeypatch.setattr(losses, "LSE_CELLS", 2 * 5 * 4)
    for mine, theirs in zip(gradients(pooled_scores), expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-14)
