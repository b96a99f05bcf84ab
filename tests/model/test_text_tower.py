"""Hugging Face towers against transformers directly, with tiny random models and a vocabulary made here."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.config import TextTowerConfig
from clippy_cli.model.registry import load_architecture, parse_model_config

WORDS = ("[PAD]", "[UNK]", "a", "photo", "of", "dog", "cat", "on", "the", "grass")
TEXTS = ["a photo of a dog", "the cat on the grass of the dog", "grass"]


def save_tokenizer(folder):
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def tiny(kind, folder):
    """A random encoder saved the way transformers does, and the reference itself."""
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            vocab_size=10, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, pad_token_id=0,
        )  # fmt: skip
        reference = BertModel(config, add_pooling_layer=False)
    else:
        config = T5Config(vocab_size=10, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0)
        reference = T5EncoderModel(config)
    reference.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return config, reference


def clippy_with_text(config, folder, projection, embed_dim):
    base = load_architecture("clippy-nano")
    text = TextTowerConfig(
        kind="hugging_face", encoder=config.to_dict(), context_length=12, pooling="mean", projection=projection
    )
    image = base.image.model_copy(update={"projection": "linear"})
    config = base.model_copy(update={"text": text, "image": image, "embed_dim": embed_dim})
    return build_model(config, text_init=str(folder)).eval()


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_text_embeddings_equal_mean_pooled_transformers(kind, tmp_path):
    config, reference = tiny(kind, tmp_path)
    dense = torch.randn(16, 16)
    (tmp_path / "2_Dense").mkdir()
    save_file({"linear.weight": dense}, tmp_path / "2_Dense" / "model.safetensors")
    model = clippy_with_text(config, tmp_path, "linear", 16)

    ids = [[WORDS.index(word) for word in text.split()] for text in TEXTS]
    for text, row in zip(TEXTS, ids, strict=True):
        with torch.no_grad():
            hidden = reference(input_ids=torch.tensor([row])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0) @ dense.T, dim=-1)
        torch.testing.assert_close(model.embed_texts([text])[0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.embed_texts(TEXTS)[2], model.embed_texts([TEXTS[2]])[0], atol=1e-5, rtol=1e-4)


def test_texts_longer_than_the_context_are_cut_not_refused(tmp_path):
    config, _ = tiny("bert", tmp_path)
    model = clippy_with_text(config, tmp_path, "none", 16)
    assert model.text.tokenize(["dog " * 50]).shape == (1, 12)
    assert model.embed_texts([]).shape == (0, 16)


def test_weights_of_another_shape_and_a_missing_folder_are_named(tmp_path):
    config, _ = tiny("bert", tmp_path)
    other = BertConfig.from_dict({**config.to_dict(), "vocab_size": 11})
    with pytest.raises(ClippyError, match="do not fit the text encoder"):
        clippy_with_text(other, tmp_path, "none", 16)
    with pytest.raises(ClippyError, match="tokenizer"):
        clippy_with_text(config, tmp_path / "absent", "none", 16)


def test_without_tokenizer_files_a_tower_takes_ids_and_refuses_texts(tmp_path):
    config = clippy_with_text(tiny("bert", tmp_path)[0], tmp_path, "none", 16).config
    model = Clippy(config).eval()
    assert model.text_vectors(torch.tensor([[5, 6]])).shape == (1, 16)
    with pytest.raises(ClippyError, match="needs tokenizer files"):
        model.embed_texts(["dog"])
    with pytest.raises(ClippyError, match="needs tokenizer files"):
        model.text.save_tokenizer(tmp_path / "saved")


@pytest.mark.parametrize("kind", ["open_clip", "bert"])
def test_a_worker_gets_the_same_ids_from_a_small_pickle(kind, nano, tmp_path):
    model = nano if kind == "open_clip" else clippy_with_text(tiny("bert", tmp_path)[0], tmp_path, "none", 16)
    sent = pickle.dumps(model.text.tokenize)
    assert len(sent) < 3_000_000  # open_clip's vocabulary; the nano tower's weights take eight times as much
    expected = model.text.tokenize(TEXTS)
    assert expected.shape == (3, 24 if kind == "open_clip" else 8)
    assert torch.equal(pickle.loads(sent)(TEXTS), expected)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("vocab_size", 255, "needs 49,408"),
        ("layers", 0, "needs 1"),
        ("layers", -1, "whole number from 0"),
        ("heads", 0.5, "whole number from 0"),
    ],
)
def test_sizes_of_an_open_clip_encoder_that_lead_to_nothing_are_named(setting, value, said):
    encoder = {"width": 16, "heads": 2, "layers": 1, "vocab_size": 49408, setting: value}
    text = {"kind": "open_clip", "encoder": encoder, "context_length": 8, "pooling": "eot", "projection": "linear"}
    nano = load_architecture("clippy-nano").model_dump()
    with pytest.raises(ClippyError, match=rf"text.encoder.{setting} is {value}, and .*{said}"):
        build_model(parse_model_config({**nano, "text": text}, where="test"))
