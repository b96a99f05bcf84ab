"""The authors' checkpoint layout, on a tiny ViT and a tiny T5 with random weights."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from transformers import T5Config, T5EncoderModel
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.errors import ClippyError
from clippy_cli.model.sources.authors import import_checkpoint
from clippy_cli.model.sources.loading import load_model
from tests.fixtures.foreign_models import VOCABULARY, write_tokenizer

T5 = {"d_model": 64, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": VOCABULARY}
TEXTS = ["a photo of a dog", "grass"]


@pytest.fixture
def parts(tmp_path):
    """The towers by themselves, their state as the authors name it, and the files of architecture and tokenizer."""
    torch.manual_seed(0)
    trunk = timm.create_model("test_vit", num_classes=0, img_size=64, dynamic_img_size=True).eval()
    encoder = T5EncoderModel(T5Config(**T5, eos_token_id=2)).eval()
    dense = torch.nn.Linear(64, 64, bias=False)
    state = {f"visual.trunk.{name}": value for name, value in trunk.state_dict().items()}
    state |= {f"text.0.auto_model.{name}": value for name, value in encoder.state_dict().items()}
    state |= {"text.2.linear.weight": dense.weight.detach(), "logit_scale": torch.tensor(3.5)}
    architecture = {
        "name": "tiny-authors",
        "embed_dim": 64,
        "image": {"trunk": "test_vit", "trunk_args": {"img_size": 64}, "projection": "none", "pooling": "max"},
        "text": {
            "kind": "hugging_face",
            "pretrained_tag": "sentence-transformers/sentence-t5-base",
            "encoder": {"model_type": "t5", "pad_token_id": 0, "eos_token_id": 2, **T5},
            "context_length": 16,
            "pooling": "mean",
            "projection": "linear",
        },
        "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resolution": 64},
        "inference": {"resolution": 64},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(architecture), encoding="utf-8")
    write_tokenizer(tmp_path / "tokenizer")
    return trunk, encoder, dense, state, tmp_path


def run_import(folder, *arguments):
    outcome = CliRunner().invoke(
        app,
        ["import", str(folder / "clippy_5k.pt"), str(folder / "out"), "--architecture", str(folder / "tiny.yaml")]
        + [str(argument) for argument in arguments],
    )
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome


@pytest.mark.parametrize("wrapped", [False, True])
def test_embeddings_are_those_of_timm_and_transformers_put_together(parts, wrapped):
    trunk, encoder, dense, state, folder = parts
    if wrapped:
        state = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(state, folder / "clippy_5k.pt")
    outcome = run_import(folder, "--tokenizer", folder / "tokenizer")
    assert outcome.exit_code == 0, outcome.output
    model = load_model(str(folder / "out"), device="cpu")
    images = torch.randn(2, 3, 64, 96)
    tokenizer = model.text.tokenizer.tokenizer
    with torch.no_grad():
        patches = trunk.forward_features(images)[:, trunk.num_prefix_tokens :]
        tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
        hidden = encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        mask = tokens.attention_mask[..., None]
        texts = F.normalize(dense((hidden * mask).sum(dim=1) / mask.sum(dim=1)), dim=-1)
    torch.testing.assert_close(model.embed_images(images), F.normalize(patches.amax(dim=1), dim=-1))
    torch.testing.assert_close(
        model.embed_patches(images), F.normalize(patches, dim=-1).view(2, 4, 6, 64), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(model.embed_texts(TEXTS), texts, atol=1e-5, rtol=1e-5)
    assert model.defaults.logit_scale == pytest.approx(torch.tensor(3.5).exp().item())
    assert json.loads((folder / "out" / "config.json").read_text())["training"] == {"imported_from": "clippy_5k.pt"}


def test_unknown_missing_and_misshapen_tensors_are_named_together(parts):
    *_, state, folder = parts
    del state["visual.trunk.norm.weight"], state["text.0.auto_model.shared.weight"]
    state.pop("text.0.auto_model.encoder.embed_tokens.weight", None)
    state["visual.trunk.head.weight"] = torch.zeros(2)
    state["text.2.linear.bias"] = torch.zeros(2)
    state["text.2.linear.weight"] = torch.zeros(3, 64)
    torch.save(state, folder / "clippy_5k.pt")
    outcome = run_import(folder, "--tokenizer", folder / "tokenizer")
    assert outcome.exit_code == 1 and not (folder / "out").exists()
    for said in (
        "2 unknown: visual.trunk.head.weight, text.2.linear.bias",
        "visual.trunk.norm.weight",
        "text.0.auto_model.shared.weight",
        "text.2.linear.weight (3, 64), wanted (64, 64)",
    ):
        assert said in outcome.stderr


def test_position_table_of_another_resolution_is_resampled(parts):
    *_, state, folder = parts
    other = timm.create_model("test_vit", num_classes=0, img_size=96)
    state["visual.trunk.pos_embed"] = other.pos_embed.detach()
    torch.save(state, folder / "clippy_5k.pt")
    model = import_checkpoint(
        folder / "clippy_5k.pt", architecture=str(folder / "tiny.yaml"), tokenizer=str(folder / "tokenizer")
    )
    assert model.image.trunk.pos_embed.shape == (1, 16 + model.image.num_prefix_tokens, 64)


def test_tokenizer_files_are_asked_for(parts):
    *_, state, folder = parts
    torch.save(state, folder / "clippy_5k.pt")
    outcome = run_import(folder)
    assert outcome.exit_code == 1
    assert "sentence-t5-base (tokenizer.json" in outcome.stderr and "--tokenizer FOLDER" in outcome.stderr


def test_code_in_the_file_is_refused_and_a_folder_is_never_replaced(parts):
    *_, folder = parts
    torch.save({"state_dict": {"a": Path("x")}}, folder / "clippy_5k.pt")
    with pytest.raises(ClippyError, match="more than tensors"):
        import_checkpoint(folder / "clippy_5k.pt", architecture=str(folder / "tiny.yaml"))
    (folder / "out").mkdir()
    outcome = run_import(folder)
    assert outcome.exit_code == 1 and "exists already" in outcome.stderr
