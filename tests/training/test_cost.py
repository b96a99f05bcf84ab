from __future__ import annotations

import dataclasses

import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.flops import forward_flops
from clippy_cli.model.registry import load_architecture
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.cost import cost_table, estimate_cost


def test_the_arithmetic_is_three_passes_of_every_pair_in_every_phase(tiny) -> None:
    recipe = tiny("data.resolution=[32, 64]", "train.final={share: 0.2}", "train.epochs=4")
    cost = estimate_cost(recipe, samples=100)
    assert (cost.samples, cost.steps, cost.images) == (100, 4 * 12, 4 * 12 * 8)
    shapes = [(phase.resolution, phase.drop_rate, phase.steps, phase.kept, phase.patches) for phase in cost.phases]
    assert shapes == [(32, 0.5, 19, 8, 16), (64, 0.5, 19, 32, 64), (32, 0.0, 5, 16, 16), (64, 0.0, 5, 64, 64)]
    model = Clippy(load_architecture(recipe.model.architecture))
    expected = 0.0
    for resolution, drop_rate, steps, kept, _ in shapes:
        forward = forward_flops(model, resolution, kept if drop_rate else None, 32)
        expected += steps * 8 * 3 * (forward.image + forward.text)
    assert cost.flops == pytest.approx(expected, rel=1e-12)
    assert cost.gpu_hours == pytest.approx(expected / (66.9e12 * 0.4) / 3600)


def test_frozen_parts_cost_one_pass_no_moments_and_stored_features_one_pass_in_all(tiny) -> None:
    learning, locked = estimate_cost(tiny()), estimate_cost(tiny("model.image.freeze=all", "train.chunk_size=2"))
    text = locked.phases[0].pair_flops - (learning.phases[0].pair_flops - locked.phases[0].pair_flops) / 2
    assert text > 0 and locked.learning < locked.parameters == learning.parameters
    saved = 8 * (learning.learning - locked.learning)
    assert learning.checkpoint_bytes - locked.checkpoint_bytes == saved
    stored = estimate_cost(tiny("model.image.freeze=trunk", "data.cache_features=true"))
    assert stored.phases[0].pair_flops == pytest.approx(text)
    forward = (learning.phases[0].pair_flops - text) / 3  # of half of the 16 patches; two views, all patches
    assert 2 * 40 * forward < stored.stored_flops < 5 * 40 * forward
    assert stored.stored_bytes == 40 * 2 * (1 + 16) * 32 * 2
    assert any(name == "stored features" for name, _ in cost_table(stored))


@pytest.mark.slow
def test_the_paper_at_scale_needs_neither_weights_nor_tokenizer_nor_data(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HQITP_SHARDS", "s3://bucket/{00000..13399}.tar")
    cost = estimate_cost(load_recipe("hqitp-134m"))
    assert cost.steps == 32 * (134_000_000 // 32_768)
    (phase,) = cost.phases
    assert (phase.kept, phase.patches) == (157, 784)
    assert phase.pair_flops == pytest.approx(123.7e9, rel=1e-3)
    assert cost.gpu_hours == pytest.approx(372.5, rel=1e-3)
    rows = dict(cost_table(cost))
    assert "11.6 hours" in rows["on 32 GPUs"] and "102,352 images/s" in rows["on 32 GPUs"]
    assert rows["checkpoint"].startswith("2.4 GB")


def test_data_of_unknown_size_asks_for_it_and_less_than_a_batch_is_refused(tiny) -> None:
    absent = "data.source={kind: shards, paths: /absent/0.tar}"
    with pytest.raises(ClippyError, match="cannot be counted") as caught:
        estimate_cost(tiny(absent))
    assert "data.source.samples" in str(caught.value)
    assert estimate_cost(tiny(absent), samples=16).steps == 4
    with pytest.raises(ClippyError, match="not one batch"):
        estimate_cost(tiny(), samples=7)


def test_sizes_follow_the_batch(tiny) -> None:
    cost = estimate_cost(tiny())
    assert cost.gathered_bytes == 2 * 8 * 16 * 4
    assert cost.logit_bytes(2) == 8 * 4 * 4
    twice = dataclasses.replace(cost, utilisation=cost.utilisation / 2)
    assert twice.gpu_hours == pytest.approx(2 * cost.gpu_hours)


def test_terms_cost_their_own_passes_and_their_state(tiny) -> None:
    plain = estimate_cost(tiny("train.drop_rate=0"))
    term = "train.self_distillation={weight: 1, prototypes: 12, hidden_dim: 24, bottleneck_dim: 8}"
    taught = estimate_cost(tiny("train.drop_rate=0", term))
    model = Clippy(load_architecture(tiny().model.architecture))
    image = forward_flops(model, 32, None, 32).image
    assert taught.phases[0].pair_flops - plain.phases[0].pair_flops == pytest.approx(8 * image)
    trunk = sum(parameter.numel() for parameter in model.image.trunk.parameters())
    head = (32 * 24 + 24) + (24 * 24 + 24) + (24 * 8 + 8) + 12 * 8
    assert taught.checkpoint_bytes - plain.checkpoint_bytes == 4 * (trunk + 4 * head)
