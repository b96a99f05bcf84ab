"""Descriptions of models that make no sense, or more of them than there is memory for."""

import json

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.registry import load_architecture, parse_model_config
from clippy_cli.model.store import load_model_directory, save_model
from tests.fixtures.export_models import tiny_model


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory):
    """A model directory without checksums, and its config.json as text."""
    folder = tmp_path_factory.mktemp("model")
    save_model(tiny_model(text="bert", folder=folder / "words"), folder / "model")
    (folder / "model" / "checksums.json").unlink()
    return folder / "model", (folder / "model" / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("embed_dim", 10**9, "embed_dim"),
        ("embed_dim", 60000, "does not fit"),
        ("image.trunk_args.depth", 10**7, "depth is 10,000,000"),
        ("image.trunk_args.patch_size", 0, "ZeroDivisionError"),
        ("image.trunk_args.num_heads", 7, "AssertionError"),
        ("image.trunk_args.img_size", 10**9, "img_size is 1,000,000,000"),
        ("image.trunk_args.checkpoint_path", "evil.pth", "must not set checkpoint_path"),
        ("image.trunk", "hf-hub:someone/model", "no trunk 'hf-hub:someone/model'"),
        ("image.trunk", "local-dir:/tmp", "no trunk 'local-dir:/tmp'"),
        ("text.encoder.vocab_size", 10**12, "vocab_size is 1,000,000,000,000"),
        ("text.encoder.num_hidden_layers", 10**6, "num_hidden_layers is 1,000,000"),
        ("text.encoder.vocab_size", 10**7, "more than its weights allow for"),
        ("text.encoder.hidden_size", 0, "describe"),
        ("text.encoder.pad_token_id", 99, "Padding_idx"),
        ("text.encoder.auto_map", {"AutoModel": "x.Y"}, "must not set auto_map"),
        ("text.context_length", 10**9, "context_length"),
        ("text.context_length", 1000, "the encoder takes 32 tokens"),
        ("preprocess.std", [0.5, 0.0, 0.5], "preprocess.std"),
        ("preprocess.resolution", 10**9, "preprocess.resolution"),
    ],
)
def test_sizes_that_make_no_sense_are_one_error(unsigned, place, value, says):
    folder, text = unsigned
    fields = json.loads(text)
    inner = fields
    *above, last = place.split(".")
    for name in above:
        inner = inner[name]
    inner[last] = value
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ClippyError, match=says):
        load_model_directory(str(folder), device="cpu")


@pytest.mark.parametrize("text", ['{"format": 1, "a":' + "[" * 200_000, '{"format": 1, "name": "\ud800', "[" * 50])
def test_a_config_that_is_no_json_is_one_error(unsigned, text):
    folder, _ = unsigned
    (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ClippyError, match="cannot be read"):
        load_model_directory(str(folder), device="cpu")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"version": "1.0", "trunc', "version https://git-lfs\n"])
def test_a_damaged_tokenizer_is_one_error(unsigned, text):
    folder, config = unsigned
    (folder / "config.json").write_text(config, encoding="utf-8")
    path = folder / "tokenizer" / "tokenizer.json"
    before = path.read_bytes()
    try:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ClippyError, match="No tokenizer could be loaded"):
            load_model_directory(str(folder), device="cpu")
    finally:
        path.write_bytes(before)


def test_ids_beyond_the_encoders_rows_are_named(unsigned):
    folder, config = unsigned
    (folder / "config.json").write_text(config, encoding="utf-8")
    path = folder / "tokenizer" / "tokenizer.json"
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(before.replace('"grass": 11', '"grass": 110'), encoding="utf-8")
        with pytest.raises(ClippyError, match="ids up to 110; the text encoder has 12"):
            load_model_directory(str(folder), device="cpu")
    finally:
        path.write_text(before, encoding="utf-8")


def test_a_new_model_is_bounded_too(tmp_path):
    fields = load_architecture("clippy-nano").model_dump()
    fields["image"]["trunk_args"] |= {"embed_dim": 1 << 16, "num_heads": 1}
    with pytest.raises(ClippyError, match="more than clippy's limits allow for"):
        build_model(parse_model_config(fields, where="x"))
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000, encoding="utf-8")
    with pytest.raises(ClippyError, match=r"nested too deeply|not YAML"):
        load_architecture(str(tmp_path / "deep.yaml"))


def test_counting_changes_no_weight(nano):
    again = build_model(load_architecture("clippy-nano"), seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in nano.state_dict().items())
