"""The towers and the tokenizer that need no library against timm and transformers: same weights, same bits."""

import json
import shutil

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig

from clippy_cli.model import bert
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.compat import timm as compat
from clippy_cli.model.compat.transformers import TextEncoder, TextTokenizer
from clippy_cli.model.dense.timm_vit import vit_tokens
from clippy_cli.model.registry import SHIPPED_MODELS
from clippy_cli.model.vit import PlainViT, embed, embed_kept, embed_masked, plain_shape
from clippy_cli.model.wordpiece import WordPiece

TOKENIZER = SHIPPED_MODELS / "clippy-ti" / "tokenizer"
SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 3}
FIELDS = {
    "model_type": "bert", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "vocab_size": 50,
    "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip


def both_trunks():
    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, global_pool="", dynamic_img_size=True, img_size=64, **SMALL
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = PlainViT(plain_shape("vit_tiny_patch16_224", {"img_size": 64, **SMALL}))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_224.dino", "vit_base_patch32_384"])
def test_a_name_stands_for_timms_sizes(name):
    shape = plain_shape(name, {})
    with torch.device("meta"):
        ours, theirs = PlainViT(shape), timm.create_model(name, num_classes=0, global_pool="")
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert (ours.patch_embed.patch_size, ours.patch_embed.grid_size, ours.blocks[0].attn.num_heads) == (
        theirs.patch_embed.patch_size, theirs.patch_embed.grid_size, theirs.blocks[0].attn.num_heads,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_small_patch14_dinov2", {}),
        ("vit_base_patch16_siglip_224", {}),
        ("vit_tiny_patch16_224", {"qk_norm": True}),
        ("vit_tiny_patch16_224", {"depth": 2.5}),
        ("vit_tiny_patch16_224", {"num_heads": 5}),
        ("efficientnet_b5", {}),
    ],
)
def test_other_trunks_are_left_to_timm(name, arguments):
    assert plain_shape(name, arguments) is None


@pytest.mark.parametrize("rule", list(PositionResampling))
def test_tokens_are_timms_to_the_last_bit(rule):
    ours, theirs = both_trunks()
    for size in ((64, 64), (48, 96)):
        images = torch.randn(2, 3, *size)
        grid = size[0] // 16, size[1] // 16
        count = grid[0] * grid[1]
        masked, token = torch.rand(2, *grid, 1) < 0.5, torch.randn(24)
        keep = torch.stack([torch.randperm(count)[:5] for _ in range(2)])
        patches = torch.randn(2, 5, 3, 16, 16)
        with torch.no_grad():
            pairs = [
                (embed(ours, images, rule), compat.embed(theirs, images, rule)),
                (embed_masked(ours, images, masked, token, rule),
                 compat.embed_masked(theirs, images, masked, token, rule)),
                (embed_kept(ours, patches, keep, grid, rule), compat.embed_kept(theirs, patches, keep, grid, rule)),
                (ours.blocks[1](patches[:, :, 0, 0, :1].expand(-1, -1, 24).contiguous()),
                 theirs.blocks[1](patches[:, :, 0, 0, :1].expand(-1, -1, 24).contiguous())),
                *(
                    (vit_tokens(ours, images, mode, blocks=(1, 3), positions=rule),
                     vit_tokens(theirs, images, mode, blocks=(1, 3), positions=rule))
                    for mode in (DenseMode.PLAIN, DenseMode.NACLIP)
                ),
            ]  # fmt: skip
        for one, other in pairs:
            assert torch.equal(one, other)


def both_encoders():
    torch.manual_seed(0)
    theirs = TextEncoder(FIELDS)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = bert.BertEncoder(FIELDS, bert.Shape.of(FIELDS))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("lengths", [(7, 7), (3, 7, 5), (1,)])
def test_texts_are_transformers_to_the_last_bit(lengths):
    ours, theirs = both_encoders()
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, 50, (length,))
    with torch.no_grad():
        assert torch.equal(ours.eval()(ids), theirs.eval()(ids))


def test_an_exported_encoder_takes_texts_of_any_length_with_and_without_padding():
    encoder = both_encoders()[0].eval()
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 3, 4]])
    sizes = ({0: torch.export.Dim("texts"), 1: torch.export.Dim("length")},)
    graph = torch.export.export(encoder, (ids,), dynamic_shapes=sizes).module()
    for texts in (ids, torch.tensor([[5, 6]] * 3)):
        torch.testing.assert_close(graph(texts), encoder(texts))


def test_training_learns_what_transformers_encoder_learns():
    ours, theirs = both_encoders()
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 0, 0]])
    for encoder in (ours, theirs):
        torch.manual_seed(1)  # of the dropped activations
        encoder.train()(ids).square().sum().backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "relu"}, {"model_type": "roberta"}, {"is_decoder": True}, {"num_attention_heads": 5},
     {"vocab_size": "50"}, {"pad_token_id": 50}, {"position_embedding_type": "relative_key"}],
)  # fmt: skip
def test_other_encoders_are_left_to_transformers(change):
    assert bert.Shape.of(FIELDS | change) is None


def test_an_encoders_full_configuration_is_understood():
    fields = BertConfig(pad_token_id=0).to_dict()
    assert bert.Shape.of({name: fields[name] for name in FIELDS if name in fields} | {"model_type": "bert"})


@pytest.fixture(scope="module")
def tokenizers():
    return WordPiece.of(TOKENIZER, 12), TextTokenizer(str(TOKENIZER), 12)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60) | st.text(alphabet="aé½İß 犬[]MASKCLSEP#@ \t\x00\u200d", max_size=30))
def test_ids_are_transformers(tokenizers, text):
    ours, theirs = tokenizers
    assert torch.equal(ours([text, "a dog"]), theirs([text, "a dog"]))


def test_the_tokenizer_is_that_of_the_shipped_model(tokenizers):
    ours, theirs = tokenizers
    assert ours.highest_id == theirs.highest_id == len(AutoTokenizer.from_pretrained(TOKENIZER)) - 1
    assert ours([], 5).numel() == 0 and ours(["a dog"], 5).shape == (1, 5)


@pytest.mark.parametrize(
    "change",
    [{"do_lower_case": False}, {"tokenizer_class": "T5Tokenizer"}, {"padding_side": "left"}, {"cls_token": "<s>"},
     {"strip_accents": False}, {"extra_special_tokens": ["[X]"]}],
)  # fmt: skip
def test_settings_that_the_file_does_not_follow_are_left_to_transformers(tmp_path, change):
    shutil.copytree(TOKENIZER, tmp_path / "t")
    path = tmp_path / "t" / "tokenizer_config.json"
    assert WordPiece.of(path.parent, 12) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert WordPiece.of(path.parent, 12) is None


def test_a_loaded_tokenizer_is_written_as_transformers_does(tmp_path, tokenizers):
    for tokenizer, folder in zip(tokenizers, ("ours", "theirs"), strict=True):
        tokenizer.save_pretrained(str(tmp_path / folder))
    files = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert files and files == sorted(path.name for path in (tmp_path / "ours").iterdir())
    for name in files:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
