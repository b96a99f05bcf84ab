"""Weights that the hub's cache holds are found where there is no network, by every source."""

from __future__ import annotations

import shutil
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from clippy_cli.model.sources.loading import load_model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Make a folder of a repository in an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def make(repository: str) -> Path:
        home = tmp_path / f"models--{repository.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("0" * 40, encoding="utf-8")
        (home / "snapshots" / ("0" * 40)).mkdir(parents=True)
        return home / "snapshots" / ("0" * 40)

    return make


def test_timm(cache):
    name = "test_vit.r160_in1k"
    settings = timm.get_pretrained_cfg(name)
    trunk = timm.create_model(name, num_classes=settings.num_classes)
    save_file(trunk.state_dict(), cache(settings.hf_hub_id) / "model.safetensors")
    model = load_model(f"timm:{name}", device="cpu")
    assert torch.equal(model.module.cls_token, trunk.cls_token)
    assert torch.equal(model.module.blocks[0].attn.qkv.weight, trunk.blocks[0].attn.qkv.weight)


def test_open_clip(cache, source_of, monkeypatch):
    source_of("tiny-vit")  # makes the architecture known
    state = open_clip.create_model("tiny-vit").state_dict()
    save_file(
        {key: value.contiguous() for key, value in state.items()}, cache("me/tiny") / "open_clip_model.safetensors"
    )
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"mine": {"hf_hub": "me/tiny/"}})
    model = load_model("open_clip:tiny-vit/mine", device="cpu")
    assert torch.equal(model.module.visual.proj, state["visual.proj"])


def test_transformers(cache, source_of):
    folder = source_of("clip").partition(":")[2]
    shutil.copytree(folder, cache("me/clip"), dirs_exist_ok=True)
    cached, local = load_model("hf:me/clip", device="cpu"), load_model(f"hf:{folder}", device="cpu")
    assert torch.equal(cached.embed_texts(["a dog"]), local.embed_texts(["a dog"]))
