from __future__ import annotations

import pytest
import torch

from clippy_cli.data.scenes import SceneSource
from clippy_cli.model.build import build_model
from clippy_cli.training.forward import Embeddings, tower_inputs
from clippy_cli.training.gradient_caching import backward_in_chunks, backward_whole
from clippy_cli.training.loader import Batch
from clippy_cli.training.loss import ContrastiveLoss
from clippy_cli.training.optim import freeze
from clippy_cli.training.order import keep_indices
from clippy_cli.training.run import model_config


def scenes(model, count: int) -> Batch:
    samples = [SceneSource(count, 4, 32).read(index) for index in range(count)]
    images = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples])
    captions = [sample.captions[:1] for sample in samples]
    token_ids = model.text.tokenize([caption for (caption,) in captions])
    return Batch(list(range(count)), captions, images=images, token_ids=token_ids)


@pytest.mark.parametrize("pooling", ["max", "lse"])
@pytest.mark.parametrize(("kind", "drop_rate"), [("softmax", 0.5), ("softmax", 0.0), ("sigmoid", 0.5)])
def test_chunks_have_the_gradient_of_the_whole_batch(tiny, pooling: str, kind: str, drop_rate: float) -> None:
    recipe = tiny(f"model.pooling={pooling}")
    model = build_model(model_config(recipe), seed=2).double()
    embed = Embeddings(model, recipe.model, "fp32", -3.0 if kind == "sigmoid" else None).double()
    batch = scenes(model, 10)
    keep = keep_indices(10, 16, drop_rate, seed=1, step=0, device=torch.device("cpu"))
    loss = ContrastiveLoss(kind, model.config.image.lse_scale if pooling == "lse" else None)

    def gradients(sizes: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        embed.zero_grad()
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        chunks = [
            tower_inputs(model, batch, keep, slice(end - size, end), None)
            for size, end in zip(sizes, ends, strict=True)
        ]
        if len(chunks) == 1:
            result = backward_whole(embed, chunks[0], loss, 0, lambda value: value)
        else:
            result = backward_in_chunks(embed, chunks, loss, list(range(len(chunks))), lambda value: value)
        return result.value, {name: p.grad.clone() for name, p in embed.named_parameters() if p.grad is not None}

    whole, expected = gradients([10])
    assert "model.log_logit_scale" in expected and (kind == "softmax" or "logit_bias" in expected)
    for sizes in ([5, 5], [4, 4, 2], [1] * 10):
        value, found = gradients(sizes)
        assert value.item() == pytest.approx(whole.item(), rel=1e-12) and found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name


def test_a_locked_tower_runs_once_a_chunk(tiny, monkeypatch) -> None:
    recipe = tiny("model.image.freeze=all", "train.drop_rate=0")
    model = build_model(model_config(recipe), seed=2)
    freeze(model, recipe.model, recipe.train)
    runs: list[str] = []
    for tower in (model.image, model.text):
        name, features = type(tower).__name__, tower.features
        monkeypatch.setattr(tower, "features", lambda *a, n=name, f=features: runs.append(n) or f(*a))
    batch, embed = scenes(model, 6), Embeddings(model, recipe.model, "fp32", None)
    chunks = [tower_inputs(model, batch, None, slice(start, start + 2), None) for start in (0, 2, 4)]
    backward_in_chunks(embed, chunks, ContrastiveLoss(), [0, 1, 2], lambda value: value)
    assert runs.count("VitTower") == 3 and runs.count("TextTower") == 6
    assert model.text.get_parameter("projection.weight").grad.abs().sum() > 0 and model.log_logit_scale.grad is not None


def test_both_passes_of_a_chunk_drop_the_same_units(tiny) -> None:
    """With dropout, chunks get their own masks; the injected gradient is right only where the passes agree."""
    recipe = tiny("train.drop_rate=0")
    model = build_model(model_config(recipe), seed=2).double()
    model.image.projection = torch.nn.Sequential(model.image.projection, torch.nn.Dropout(0.5))
    embed = Embeddings(model, recipe.model, "fp32", None).double().train()
    batch, loss, seeds = scenes(model, 6), ContrastiveLoss(), [11, 12]
    chunks = [tower_inputs(model, batch, None, slice(start, start + 3), None) for start in (0, 3)]
    backward_in_chunks(embed, chunks, loss, seeds, lambda value: value)
    found = {name: p.grad.clone() for name, p in embed.named_parameters() if p.grad is not None}
    embed.zero_grad()
    outputs = []
    for chunk, seed in zip(chunks, seeds, strict=True):
        torch.manual_seed(seed)
        outputs.append(embed(chunk))
    images, texts = (torch.cat([output[side] for output in outputs]) for side in (0, 1))
    loss(images, texts, outputs[0][2], outputs[0][3]).value.backward()
    for name, parameter in embed.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(found[name], parameter.grad, rtol=1e-9, atol=1e-12), name
