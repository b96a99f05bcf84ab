from __future__ import annotations

from pathlib import Path

import pytest

from clippy_cli.recipe.loading import load_recipe, shipped_recipes

EVERYTHING = """\
name: big
output: ~/runs/big/
model:
  architecture: clip-b16
  image: {init: weights.safetensors, freeze: trunk}
  text: {init: pretrained, freeze: encoder, tokenizer: somewhere}
data:
  source: {kind: shards, paths: "s3://bucket/{0..9}.tar", samples: 100000}
  validation: {kind: shards, paths: "${SOMEWHERE}/held-out.tar"}
  resolution: [224, 336, 448]
  crop_scale: [0.5, 1]
  flip: true
  workers: 16
train:
  epochs: 3
  batch_size: 4096
  chunk_size: 256
  loss: sigmoid
  local_loss: false
  gather_with_grad: false
  compile: true
  optimizer: lamb
  lr: 1e-3
  warmup_steps: 500
  schedule: constant
  precision: fp16
  drop_rate: 0.8
  final: {share: 0.01, drop_rate: 0.25, resolution: 224, chunk_size: 64}
evaluate: {sets: [voc20], every: 1000, best: voc20.miou, protocol: sclip, limit: 5}
log: {tensorboard: true, wandb: mine}
"""


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_has_a_smoke_form_that_needs_nothing(name: str, monkeypatch) -> None:
    for variable in ("CLIPPY_DATA", "HQITP_SHARDS"):
        monkeypatch.delenv(variable, raising=False)
    smoke = load_recipe(name, smoke=True)
    assert smoke.output == f"runs/{name}-smoke"
    assert smoke.data.source.kind == "scenes"
    assert (smoke.model.image.init, smoke.model.text.init) == ("random", "random")
    small = {"cc12m-align-b5": "align-nano", "dinov2-text": "dinov2-text-nano"}
    assert smoke.model.architecture == small.get(name, "clippy-nano")
    assert smoke.train.steps * smoke.train.batch_size < 200


def test_what_selects_a_code_path_is_kept_and_what_costs_time_is_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("SOMEWHERE", raising=False)
    path = tmp_path / "big.yaml"
    path.write_text(EVERYTHING, encoding="utf-8")
    smoke = load_recipe(str(path), ["train.drop_rate=0.5"], smoke=True)
    assert (smoke.name, smoke.output) == ("big-smoke", "/home/me/runs/big-smoke")
    model, data, train = smoke.model, smoke.data, smoke.train
    assert (model.pooling, model.image.freeze, model.text.freeze) == ("cls", "trunk", "encoder")
    assert model.text.tokenizer is None
    assert (data.resolution, data.crop_scale, data.flip, data.workers) == ((32, 64), (0.5, 1.0), True, 1)
    assert data.validation is not None and data.validation.kind == "scenes" and train.validate_every == 3
    kept = (train.loss, train.local_loss, train.optimizer, train.schedule, train.lr, train.drop_rate)
    assert kept == ("sigmoid", False, "lamb", "constant", 1e-3, 0.5)
    assert (train.precision, train.compile, train.steps, train.epochs) == ("bf16", False, 6, None)
    assert train.chunk_size == train.final.chunk_size == 8 < train.batch_size
    assert round(train.final.share * 6) == 1 and (train.final.drop_rate, train.final.resolution) == (0.25, 32)
    evaluate = smoke.evaluate
    assert (evaluate.sets, evaluate.scenes, evaluate.every, evaluate.best) == ((), 8, 3, "scenes.miou")
    assert (smoke.log.tensorboard, smoke.log.wandb) == (False, None)


def test_a_larger_final_resolution_stays_the_larger_and_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("image: {trunk: efficientnet_b0, pooling: avg}\npreprocess: {resolution: 224}\n", encoding="utf-8")
    final = "train.final={share: 0.5, resolution: 448}"
    smoke = load_recipe("quickstart", [f"model.architecture={own}", final], smoke=True)
    assert (smoke.data.resolution, smoke.train.final.resolution, smoke.train.final.share) == ((32,), 64, 0.5)
    assert (smoke.model.architecture, smoke.model.pooling) == ("align-nano", "avg")
    assert load_recipe("quickstart", ["model.architecture=absent"], smoke=True).model.architecture == "absent"


def test_words_are_frequent_enough_in_the_few_scenes_of_the_pass(monkeypatch) -> None:
    monkeypatch.setenv("CLIPPY_DATA", "/nowhere")
    few, many = (
        load_recipe("clippy-ti", [f"train.words.min_images={images}"], smoke=True).train.words for images in (2, 500)
    )
    assert few.min_images == 2 and many.min_images == 16
