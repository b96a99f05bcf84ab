"""Talk2DINO on tiny random weights against the paper's formulas, and what is said of files that do not fit."""

import math
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from clippy_cli.data.prompts import prompt_embeddings
from clippy_cli.errors import ClippyError
from clippy_cli.model.sources.loading import check_source, load_model
from clippy_cli.model.sources.talk2dino_model import Talk2Dino, TextMap, require_class_attention
from clippy_cli.model.sources.timm_trunk import TimmTrunk


@pytest.fixture(scope="module")
def model(source_of):
    return load_model(source_of("talk2dino"), device="cpu")


@pytest.fixture(scope="module")
def parts(source_of):
    """CLIP, trunk and the tensors of the map, each read by itself."""
    file, text, trunk = source_of("talk2dino").removeprefix("talk2dino:").split(",")
    return (
        load_model("open_clip:" + text.removeprefix("text="), device="cpu"),
        load_model("timm:" + trunk.removeprefix("trunk="), device="cpu"),
        torch.load(file, weights_only=True),
    )


def mapped(weights, vector):
    hidden = torch.tanh(weights["linear_layer.weight"] @ vector + weights["linear_layer.bias"])
    return weights["hidden_layers.0.weight"] @ hidden + weights["hidden_layers.0.bias"]


def test_texts_are_mapped_and_templates_averaged_before(model, parts):
    clip, _, weights = parts
    prompts = ["a dog", "one dog", "a cat", "one cat"]
    raw = clip.text_vectors(prompts)
    expected = torch.stack([F.normalize(mapped(weights, vector), dim=0) for vector in raw])
    torch.testing.assert_close(model.embed_texts(prompts), expected)
    means = torch.stack([F.normalize(mapped(weights, (raw[i] + raw[i + 1]) / 2), dim=0) for i in (0, 2)])
    torch.testing.assert_close(prompt_embeddings(model, ["dog", "cat"], ["a {}", "one {}"]), means)


def test_patches_are_the_trunks(model, parts):
    images = torch.randn(2, 3, 48, 64)
    torch.testing.assert_close(model.embed_patches(images), parts[1].embed_patches(images))


def test_an_image_scores_by_its_best_head(model, parts):
    trunk = parts[1].module
    side = model.preprocess.resolution
    assert side == 448  # what the maps were trained on
    image, texts = torch.randn(1, 3, side, side), F.normalize(torch.randn(3, 64), dim=1)
    tokens = trunk._pos_embed(trunk.patch_embed(image))
    for block in trunk.blocks[:-1]:
        tokens = block(tokens)
    last, prefix = trunk.blocks[-1], trunk.num_prefix_tokens
    patches = trunk.norm(last(tokens))[0, prefix:]
    heads = last.attn.num_heads
    queries, keys, _ = (
        part.reshape(-1, heads, 64 // heads) for part in last.attn.qkv(last.norm1(tokens))[0].split(64, 1)
    )
    products = [
        torch.stack([queries[0, head] @ key for key in keys[prefix:, head]]) / math.sqrt(64 // heads)
        for head in range(heads)
    ]
    seen = [F.normalize(product.softmax(0) @ patches, dim=0) for product in products]
    expected = torch.stack([torch.stack([vector @ text for vector in seen]).max() for text in texts])
    torch.testing.assert_close(model.score_images(image, texts)[0], expected, atol=1e-5, rtol=0)
    mean = F.normalize(torch.stack(products).mean(0).softmax(0) @ patches, dim=0)
    torch.testing.assert_close(model.embed_images(image)[0], mean, atol=1e-5, rtol=0)


def test_a_trunk_of_dinov3_is_read_before_its_rotations(parts):
    torch.manual_seed(2)
    small = {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    trunk = TimmTrunk("dinov3", timm.create_model("vit_small_patch16_dinov3", num_classes=0, **small))
    require_class_attention(trunk)
    model = Talk2Dino("map", parts[0], trunk, TextMap([32, 64]))
    image, text = torch.randn(1, 3, 448, 448), F.normalize(torch.randn(1, 64), dim=1)
    module: Any = trunk.module
    seen = []
    handle = module.blocks[-1].attn.qkv.register_forward_hook(lambda *call: seen.append(call[2]))
    patches = module.forward_features(image)[0, module.num_prefix_tokens :]
    handle.remove()
    queries, keys, _ = seen[0][0].chunk(3, dim=-1)
    scores = []
    for head in (slice(0, 32), slice(32, 64)):
        products = keys[module.num_prefix_tokens :, head] @ queries[0, head] / math.sqrt(32)
        scores.append(F.normalize(products.softmax(0) @ patches, dim=0) @ text[0])
    torch.testing.assert_close(model.score_images(image, text)[0, 0], torch.stack(scores).max(), atol=1e-5, rtol=0)


def test_a_trunk_without_class_token_is_refused():
    trunk = TimmTrunk("convnext", timm.create_model("test_convnext", num_classes=0))
    with pytest.raises(ClippyError, match="convnext has none that can be read"):
        require_class_attention(trunk)


def test_older_files_name_their_second_layer_otherwise(source_of, model, tmp_path):
    file, *others = source_of("talk2dino").removeprefix("talk2dino:").split(",")
    state = {key.replace("hidden_layers.0", "linear_layer2"): value for key, value in torch.load(file).items()}
    torch.save(state, tmp_path / "older.pth")
    older = load_model(",".join([f"talk2dino:{tmp_path / 'older.pth'}", *others]), device="cpu")
    assert torch.equal(older.embed_texts(["dog"]), model.embed_texts(["dog"]))
    assert older.name == "older.pth,text=tiny-vit.pt,trunk=test_vit.safetensors"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"linear_layer.weight": torch.ones(64, 32)}, "no map of Talk2DINO: it holds linear_layer.weight"),
        ({"linear_layer.weight": torch.ones(48, 32), "linear_layer.bias": torch.zeros(48)}, "from 32 to 48 features"),
        ({"linear_layer.weight": torch.ones(64, 32), "linear_layer.bias": torch.zeros(48)}, "do not follow on"),
        (
            {
                "linear_layer.weight": torch.ones(64, 32),
                "linear_layer.bias": torch.ones(64),
                "attn_weights": torch.ones(2),
            },
            "no map of Talk2DINO: it holds attn_weights",
        ),
    ],
)
def test_maps_that_do_not_fit(source_of, tmp_path, state, said):
    _, *others = source_of("talk2dino").split(",")
    torch.save(state, tmp_path / "map.pth")
    with pytest.raises(ClippyError, match=said):
        load_model(",".join([f"talk2dino:{tmp_path / 'map.pth'}", *others]), device="cpu")
    if "48" in said:
        with pytest.raises(ClippyError, match="48 features, a width that none"):
            load_model(f"talk2dino:{tmp_path / 'map.pth'}", device="cpu")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("talk2dino:nowhere.pth", "nowhere.pth, which is not there"),
        ("talk2dino:map.pth,eyes=x", "cannot be read at 'eyes=x'"),
        ("talk2dino:map.pth,trunk=vit_smal", "timm has no model"),
        ("talk2dino:map.pth,text=ViT-B-61/openai", "no architecture 'ViT-B-61'"),
        ("clip-dinoiser:nowhere.pt", "nowhere.pt, which is not there"),
    ],
)
def test_what_is_no_source_is_said_before_anything_is_loaded(source, said):
    with pytest.raises(ClippyError, match=said):
        check_source(source, texts=True)


@pytest.mark.parametrize("name", ["talk2dino", "clip-dinoiser"])
def test_dense_modes_are_refused(source_of, name):
    with pytest.raises(ClippyError, match=f"models of {name}: give their patches in one way only"):
        check_source(source_of(name), dense="sclip")
