"""What is said where a source cannot be had: which file was looked for, and how a local copy is passed."""

import argparse
import copy
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.pretrained import get_pretrained_cfg

from clippy_cli.errors import ClippyError
from clippy_cli.model.sources import open_clip as open_clip_source
from clippy_cli.model.sources import timm as timm_source
from clippy_cli.model.sources.loading import check_source, list_models, load_model, split_source
from clippy_cli.model.sources.open_clip_model import looked_for
from tests.fixtures import foreign_models


@pytest.mark.parametrize(
    ("source", "looked", "way"),
    [
        (
            "open_clip:ViT-B-16/openai",
            "timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors",
            "ViT-B-16-quickgelu/path",
        ),
        ("hf:nvidia/groupvit-gcc-yfcc", "config.json in nvidia/groupvit-gcc-yfcc", "hf:/path/to/folder"),
        ("timm:vit_small_patch16_224.dino", "model.safetensors of timm/vit_small_patch16_224.dino", "224.dino@/path"),
    ],
)
def test_without_network_and_weights_the_file_and_the_way_are_named(source, looked, way, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ClippyError) as raised:
        load_model(source, device="cpu")
    assert looked in raised.value.message and way in raised.value.hint


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("open_clip:ViT-B-61/openai", "no architecture 'ViT-B-61'"),
        ("open_clip:ViT-B-16/opnai", r"neither a file nor a tag of ViT-B-16 \(openai, "),
        ("timm:vit_smal_patch16_224", "timm has no model"),
        ("timm:test_vit@missing.pth", "missing.pth, which is not there"),
        ("timm:", "names no model after the colon"),
        ("hf:./nowhere", "is neither a directory nor"),
        ("clipy-ti", "No model 'clipy-ti'"),
    ],
)
def test_what_is_no_source_is_said_before_anything_is_loaded(source, said):
    with pytest.raises(ClippyError, match=said):
        check_source(source)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dense": "denseclip"}, "cannot be 'denseclip'"),
        ({"dense": "proxyclip"}, "needs the model that steers it"),
        ({"dense": "sclip", "proxy": "clippy-ti"}, "takes none"),
        ({"dense": "sclip", "source": "hf:openai/clip"}, "cannot be had of hf:openai/clip: models of hf:"),
    ],
)
def test_dense_modes_that_do_not_fit(options, said):
    source = options.pop("source", "open_clip:ViT-B-16/openai")
    with pytest.raises(ClippyError, match=said):
        check_source(source, **options)


def test_directories_with_a_colon_stay_directories():
    assert split_source("C:/models/a") == ("clippy", "C:/models/a")


def test_open_clip_weights_of_openai_get_their_activation(source_of, tmp_path, monkeypatch):
    """Plain ViT-B-16 is built with GELU, but OpenAI's weights want QuickGELU and are wrong without, unnoticed."""
    file = source_of("tiny-vit").partition("/")[2]
    entry = {"file": file, "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"openai": entry})
    model = load_model("open_clip:tiny-vit/openai", device="cpu")
    block = model.module.visual.transformer.resblocks[0]
    assert type(block.mlp.gelu).__name__ == "QuickGELU"
    assert model.preprocess.mean == (0.1, 0.2, 0.3)


def test_open_clip_weights_that_do_not_fit(source_of, tmp_path):
    other = source_of("tiny-rn").partition("/")[2]
    with pytest.raises(ClippyError, match=r"cannot be loaded as open_clip's tiny-vit: .*visual"):
        load_model(f"open_clip:tiny-vit/{other}", device="cpu")


@pytest.mark.parametrize(
    ("prefix", "wrap"),
    [
        ("", lambda state: state),
        ("backbone.", lambda state: {"student": {}, "teacher": state, "args": argparse.Namespace(arch="vit")}),
        ("module.base_encoder.", lambda state: {"epoch": 300, "state_dict": state}),
    ],
)
def test_released_checkpoints_of_dino_and_moco(tmp_path, prefix, wrap):
    torch.manual_seed(0)
    trunk = timm.create_model("test_vit", num_classes=0).eval()
    state = {f"{prefix}{name}": value for name, value in trunk.state_dict().items()}
    if prefix:
        state |= {f"{prefix}head.0.weight": torch.zeros(3), "module.momentum_encoder.norm.weight": torch.zeros(64)}
    torch.save(wrap(state), tmp_path / "release.pth")
    model = load_model(f"timm:test_vit@{tmp_path / 'release.pth'}", device="cpu")
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(trunk.forward_features(images)[:, 0], dim=-1)
    torch.testing.assert_close(model.embed_images(images), expected, atol=1e-5, rtol=1e-5)


def test_a_released_checkpoint_of_dinov2_with_registers(tmp_path):
    """As released: registers by their own name, and the class token's position in the table."""
    name = "vit_small_patch14_reg4_dinov2"
    trunk = timm.create_model(name, num_classes=0, depth=1, img_size=518).eval()
    state = trunk.state_dict()
    position = torch.randn(1, 1, 384)
    released = {key: value for key, value in state.items() if key not in ("reg_token", "cls_token", "pos_embed")}
    released |= {
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
        "mask_token": torch.zeros(1, 384),
    }
    released |= {
        key.replace("blocks.0", f"blocks.{i}"): released[key].clone()
        for i in range(1, 12)
        for key in state
        if "blocks" in key
    }
    torch.save(released, tmp_path / "dinov2.pth")
    loaded = load_model(f"timm:{name}@{tmp_path / 'dinov2.pth'}", device="cpu").module
    torch.testing.assert_close(loaded.cls_token, trunk.cls_token)
    torch.testing.assert_close(loaded.pos_embed, trunk.pos_embed)
    torch.testing.assert_close(loaded.reg_token, trunk.reg_token)


def test_what_moco_releases_has_its_own_heads_and_statistics(tmp_path):
    """Both would be wrong unnoticed: timm's ViT-S has six heads, and pixels from -1 to 1."""
    trunk = timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12).eval()
    state = {f"module.base_encoder.{name}": value for name, value in trunk.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "vit-s.pth.tar")
    model = load_model(f"timm:vit_small_patch16_224@{tmp_path / 'vit-s.pth.tar'}", device="cpu")
    assert model.preprocess.mean == (0.485, 0.456, 0.406) and model.preprocess.std == (0.229, 0.224, 0.225)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(trunk.forward_features(images)[:, 0], dim=-1)
    torch.testing.assert_close(model.embed_images(images), expected, atol=1e-5, rtol=1e-5)


def test_trunk_weights_that_lack_and_add_tensors(tmp_path):
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    del state["norm.weight"]
    torch.save({**state, "extra.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ClippyError, match=r"lacks 1 tensors \(norm.weight\) and adds 1 tensors \(extra.weight\)"):
        load_model(f"timm:test_vit@{tmp_path / 'a.pth'}", device="cpu")


def test_transformers_models_that_cannot_be_read(source_of, tmp_path):
    folder = tmp_path / "naflex"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip2"}), encoding="utf-8")
    with pytest.raises(ClippyError, match="NaFlex"):
        load_model(f"hf:{folder}", device="cpu")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(ClippyError, match="is a bert model; clippy reads clip"):
        load_model(f"hf:{folder}", device="cpu")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}), encoding="utf-8"
    )
    (folder / "mine.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(ClippyError, match="looks for config"):
        load_model(f"hf:{folder}", device="cpu")


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_pixel_statistics_of_a_processor_file(source_of, settings, mean, std):
    from pathlib import Path

    file = Path(source_of("align").removeprefix("hf:")) / "preprocessor_config.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    try:
        preprocess = load_model(source_of("align"), device="cpu").preprocess
    finally:
        file.unlink()
    assert preprocess.mean == pytest.approx(mean) and preprocess.std == pytest.approx(std)


def test_listed_models_are_those_of_the_registries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "mine" / "model"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}", encoding="utf-8")
    listed = {entry.source: entry for entry in list_models(everything=True).models}
    assert listed["clippy-ti"].at_hand and listed["runs/mine"].at_hand
    assert len(listed) > 100
    for name, repository in open_clip_source.KNOWN:
        assert f"open_clip:{name}" in listed
        assert looked_for(get_pretrained_cfg(*name.split("/"))).startswith(f"{repository}/")
    for name in timm_source.KNOWN:
        assert f"timm:{name}" in listed
        assert timm.get_pretrained_cfg(name, allow_unregistered=False).hf_hub_id == f"timm/{name}"


@pytest.fixture
def clip_folder(source_of, tmp_path):
    return Path(shutil.copytree(source_of("clip").partition(":")[2], tmp_path / "clip"))


def test_a_transformers_folder_without_vocabulary_is_refused(clip_folder):
    """transformers makes an empty tokenizer, and every label would be the same text."""
    for file in clip_folder.glob("token*"):
        file.unlink()
    with pytest.raises(ClippyError, match=r"cannot tell dog from cat. Looked for tokenizer.json"):
        load_model(f"hf:{clip_folder}", device="cpu")


@pytest.mark.parametrize("settings", [{"image_mean": 0.5}, {"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}])
def test_a_transformers_folder_whose_pixels_cannot_be_scaled_is_refused(clip_folder, settings):
    (clip_folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ClippyError, match=r"preprocessor_config.json .* how pixels are scaled"):
        load_model(f"hf:{clip_folder}", device="cpu")


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("text_config", "num_hidden_layers", 2**31),
        ("vision_config", "num_hidden_layers", 10**12),
        ("vision_config", "hidden_size", -8),
    ],
)
def test_a_transformers_folder_of_absurd_sizes_is_refused_before_it_is_built(clip_folder, section, setting, value):
    fields = json.loads((clip_folder / "config.json").read_text(encoding="utf-8"))
    fields[section][setting] = value
    (clip_folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ClippyError, match=rf"makes no sense: {section}.{setting} is"):
        load_model(f"hf:{clip_folder}", device="cpu")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model_cfg.text_cfg.layers", 2**32, r"text_cfg.layers: .*less than or equal to 512"),
        ("model_cfg.text_cfg.heads", 0.5, r"text_cfg.heads: .*integer"),
        ("model_cfg.vision_cfg.image_size", "224", r"vision_cfg.image_size"),
        ("model_cfg.embed_dim", None, r"embed_dim: .*integer"),
        ("preprocess_cfg.mean", 0.5, r"preprocess_cfg.mean: .*tuple"),
        ("preprocess_cfg.std", [0.5, 0.0, 0.5], r"preprocess_cfg.std.1: .*greater than 0"),
        ("preprocess_cfg.mean", [0.5, 0.5], r"preprocess_cfg.mean.2: field required"),
    ],
)
def test_an_open_clip_folder_that_describes_no_model_is_refused(tmp_path, path, value, said):
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [32, 32]}
    fields: dict[str, Any] = {
        "model_cfg": copy.deepcopy(foreign_models.OPEN_CLIP["tiny-vit"]),
        "preprocess_cfg": pixels,
    }
    *sections, name = path.split(".")
    place = fields
    for section in sections:
        place = place[section]
    place[name] = value
    (tmp_path / "open_clip_config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ClippyError, match=rf"open_clip_config.json describes no model: .*{said}"):
        load_model(f"open_clip:{tmp_path}", device="cpu")
