from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.training.optim import build_optimizer, freeze, learning_rate_factor, parameter_groups
from clippy_cli.training.run import model_config


def named_groups(model, recipe) -> dict[str, tuple[float, float]]:
    """Parameter name -> (peak learning rate, weight decay)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, recipe.model, recipe.train)
    return {names[id(p)]: (group["peak_lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@given(total=st.integers(2, 500), warmup=st.integers(0, 100), step=st.integers(0, 499))
def test_cosine_schedule_is_the_plain_formula(total: int, warmup: int, step: int) -> None:
    warmup, step = min(warmup, total - 1), min(step, total - 1)
    if step < warmup:
        expected = (step + 1) / warmup
    else:
        expected = (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
    assert learning_rate_factor(step, total, warmup, "cosine") == pytest.approx(expected)


def test_constant_schedule_stays_at_the_peak_after_warm_up() -> None:
    assert [learning_rate_factor(step, 5, 2, "constant") for step in range(5)] == [0.5, 1, 1, 1, 1]


def test_towers_have_their_own_rates_and_tables_no_decay(tiny) -> None:
    recipe = tiny("model.image.lr=1e-5", "model.text.lr=1e-4", "train.weight_decay=0.3", "train.logit_scale_lr=1e-2")
    groups = named_groups(build_model(model_config(recipe)), recipe)
    assert groups["image.trunk.blocks.0.attn.qkv.weight"] == (1e-5, 0.3)
    assert groups["image.trunk.blocks.0.attn.qkv.bias"] == (1e-5, 0.0)
    assert groups["image.trunk.pos_embed"] == groups["image.trunk.cls_token"] == (1e-5, 0.0)
    assert groups["image.projection.weight"] == (1e-3, 0.3)
    assert groups["text.encoder.token_embedding.weight"] == (1e-4, 0.3)
    assert groups["text.encoder.positional_embedding"] == groups["text.encoder.ln_final.weight"] == (1e-4, 0.0)
    assert groups["log_logit_scale"] == (1e-2, 0.0)


def test_timm_agrees_on_what_has_no_decay(tiny) -> None:
    recipe = tiny()
    model = build_model(model_config(recipe))
    groups = named_groups(model, recipe)
    undecayed = {f"image.trunk.{name}" for name in model.image.trunk.no_weight_decay()} & set(groups)
    assert undecayed == {"image.trunk.pos_embed", "image.trunk.cls_token"}
    assert all(groups[name][1] == 0.0 for name in undecayed)


def test_frozen_parts_are_in_no_group_and_something_must_be_left(tiny) -> None:
    recipe = tiny("model.image.freeze=trunk", "model.text.freeze=all")
    model = build_model(model_config(recipe))
    freeze(model, recipe.model, recipe.train)
    assert set(named_groups(model, recipe)) == {"image.projection.weight", "log_logit_scale"}
    recipe = tiny("model.image.freeze=trunk", "model.text.freeze=all", "train.logit_scale_lr=0")
    freeze(model, recipe.model, recipe.train)
    assert set(named_groups(model, recipe)) == {"image.projection.weight"}
    recipe = tiny("model.image.freeze=all", "model.text.freeze=all")
    freeze(model, recipe.model, recipe.train)
    with pytest.raises(ClippyError, match="Nothing is left to train"):
        parameter_groups(model, recipe.model, recipe.train)


def test_lamb_does_not_clip_a_second_time(tiny) -> None:
    recipe = tiny("train.optimizer=lamb", "train.weight_decay=0")
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = build_optimizer(
        [{"params": [weight], "lr": 1.0, "weight_decay": 0.0}], recipe.train, torch.device("cpu")
    )
    weight.grad = torch.full((4,), 100.0)
    optimizer.step()
    assert torch.allclose(optimizer.state[weight]["exp_avg"], torch.full((4,), 100.0 * (1 - recipe.train.betas[0])))
