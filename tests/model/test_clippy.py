"""The model against a plain reimplementation of the paper's definition, on random weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.build import build_model
from clippy_cli.model.patch_forms import patch_form, with_patch_form
from clippy_cli.model.pooling import affinity_mean, lse_scores
from clippy_cli.model.registry import architecture_names, load_architecture, parse_model_config
from clippy_cli.model.sampling import draw_keep_indices


def plain_vit(trunk, images, heads):
    """A vision transformer written out from its parameters, to check the tower's token path."""
    weights = dict(trunk.named_parameters())
    x = F.conv2d(
        images,
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=trunk.patch_embed.patch_size,
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], dim=1) + weights["pos_embed"]
    collected = []
    for i in range(len(trunk.blocks)):
        block = {name.removeprefix(f"blocks.{i}."): p for name, p in weights.items() if name.startswith(f"blocks.{i}.")}
        y = F.layer_norm(x, x.shape[-1:], block["norm1.weight"], block["norm1.bias"], 1e-6)
        q, k, v = (y @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]).chunk(3, dim=-1)
        parts = []
        for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
            parts.append(torch.softmax(qh @ kh.transpose(1, 2) / math.sqrt(qh.shape[-1]), dim=-1) @ vh)
        x = x + torch.cat(parts, -1) @ block["attn.proj.weight"].T + block["attn.proj.bias"]
        y = F.layer_norm(x, x.shape[-1:], block["norm2.weight"], block["norm2.bias"], 1e-6)
        y = F.gelu(y @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"])
        x = x + y @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
        collected.append(F.layer_norm(x, x.shape[-1:], weights["norm.weight"], weights["norm.bias"], 1e-6))
    return collected


def nano_with(**image):
    config = load_architecture("clippy-nano")
    return build_model(config.model_copy(update={"image": config.image.model_copy(update=image)}), seed=2).eval()


def test_tokens_and_pooled_vector_follow_the_papers_definition(nano):
    images = torch.randn(2, 3, 64, 64)
    tokens = plain_vit(nano.image.trunk, images, heads=3)[-1] @ nano.image.projection.weight.T
    torch.testing.assert_close(nano.image_tokens(images), tokens, atol=2e-5, rtol=1e-4)
    pooled = tokens[:, 1:].max(dim=1).values
    torch.testing.assert_close(nano.embed_images(images), F.normalize(pooled, dim=-1), atol=2e-5, rtol=1e-4)
    patches = F.normalize(tokens[:, 1:], dim=-1).reshape(2, 8, 8, 96)
    torch.testing.assert_close(nano.embed_patches(images), patches, atol=2e-5, rtol=1e-4)


def test_blocks_are_normed_and_concatenated():
    model = nano_with(blocks=(2, 4), projection="mlp", hidden_dim=32)
    images = torch.randn(1, 3, 64, 64)
    collected = plain_vit(model.image.trunk, images, heads=3)
    torch.testing.assert_close(
        model.image.features(images), torch.cat([collected[1], collected[3]], -1), atol=2e-5, rtol=1e-4
    )


def test_max_of_patches_before_normalising_is_the_pooled_vector(nano):
    images = torch.randn(2, 3, 64, 96)
    pooled = nano.image_tokens(images)[:, 1:].amax(dim=1)
    torch.testing.assert_close(F.normalize(pooled, dim=-1), nano.embed_images(images))


@pytest.mark.parametrize("size", [(8, 8), (40, 104), (96, 96), (200, 56)])
def test_any_multiple_of_the_patch_goes_and_the_stored_table_stays(nano, size):
    before = nano.image.trunk.pos_embed.shape
    assert nano.embed_patches(torch.randn(1, 3, *size)).shape == (1, size[0] // 8, size[1] // 8, 96)
    assert nano.image.trunk.pos_embed.shape == before


def test_other_sizes_are_refused_with_the_patch_named(nano):
    with pytest.raises(ClippyError, match=r"97x96 .* patches of 8"):
        nano.embed_images(torch.randn(1, 3, 97, 96))


def test_keeping_every_token_changes_nothing_and_dropping_equals_a_shorter_sequence(nano):
    images = torch.randn(2, 3, 64, 64)
    everything = torch.arange(64).expand(2, -1)
    torch.testing.assert_close(nano.image_tokens(images, everything), nano.image_tokens(images))
    keep = draw_keep_indices(2, 64, 0.8)
    trunk = nano.image.trunk
    full = trunk._pos_embed(trunk.patch_embed(images))
    for b in range(2):
        row = torch.cat([full[b, :1], full[b, 1:][keep[b]]])[None]
        alone = trunk.norm(trunk.blocks(row))
        torch.testing.assert_close(nano.image.features(images, keep)[b : b + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["max", "avg", "cls", "lse"])
def test_scores_are_cosines_of_the_pooled_vector_or_their_log_mean_exp(pooling):
    model = nano_with(pooling=pooling)
    images, texts = torch.randn(2, 3, 64, 64), model.embed_texts(["a red star", "grass", "two rings"])
    scores = model.score_images(images, texts)
    assert scores.shape == (2, 3) and scores.abs().max() <= 1
    if pooling == "lse":
        cosines = (model.embed_patches(images).flatten(1, 2) @ texts.T).double()
        expected = torch.log(torch.exp(20 * cosines).mean(dim=1)) / 20
        torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=1e-4)
    else:
        torch.testing.assert_close(scores, model.embed_images(images) @ texts.T)


def test_centring_subtracts_the_stored_mean_before_normalising():
    model = nano_with()
    model.patch_mean.copy_(torch.randn(96))
    images = torch.randn(1, 3, 64, 64)
    tokens = model.image_tokens(images)[:, 1:]
    expected = F.normalize(tokens - model.patch_mean, dim=-1).view(1, 8, 8, 96)
    torch.testing.assert_close(with_patch_form(model, "centred").embed_patches(images), expected)
    assert not torch.allclose(with_patch_form(model, "plain").embed_patches(images), expected)


def test_shared_patches_are_means_by_affinity_of_an_inner_block_in_every_score():
    model = nano_with(blocks=(2, 4), pooling="lse")
    plain = model.image_tokens(images := torch.randn(1, 3, 64, 64))
    inference = model.config.inference.model_copy(update={"affinity_block": 2, "affinity_scale": 5.0})
    model.config = model.config.model_copy(update={"inference": inference})
    keys = model.image.features(images)[:, 1:, : model.image.trunk.embed_dim]
    expected = F.normalize(affinity_mean(plain[:, 1:], keys, 5.0), dim=-1)
    torch.testing.assert_close(model.embed_patches(images).flatten(1, 2), expected)
    torch.testing.assert_close(model.image_tokens(images)[:, 0], plain[:, 0])
    texts = model.embed_texts(["a red star"])
    torch.testing.assert_close(model.score_images(images, texts), lse_scores(expected, texts, 20.0))
    softer = model.config.inference.model_copy(update={"lse_scale": 10.0})
    model.config = model.config.model_copy(update={"inference": softer})
    torch.testing.assert_close(model.score_images(images, texts), lse_scores(expected, texts, 10.0))
    assert patch_form(model) == "shared"
    plainly = with_patch_form(model, "plain")
    torch.testing.assert_close(plainly.embed_patches(images).flatten(1, 2), F.normalize(plain[:, 1:], dim=-1))
    with pytest.raises(ClippyError, match="affinity_block"):
        with_patch_form(plainly, "shared")


@pytest.mark.parametrize("name", ["affinity_scale", "lse_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_of_inference_are_finite_and_positive(name: str, value: float):
    fields = load_architecture("clippy-nano").model_dump()
    fields["inference"][name] = value
    with pytest.raises(ClippyError, match=f"inference.{name}"):
        parse_model_config(fields, where="here")


@pytest.mark.parametrize("inference", [{"affinity_block": 3}, {"affinity_block": 2, "centre_patches": True}])
def test_sharing_needs_a_block_that_is_taken_and_no_centring(inference):
    fields = load_architecture("clippy-nano").model_dump()
    fields["image"]["blocks"] = (2, 4)
    fields["inference"] |= inference
    with pytest.raises(ClippyError, match="affinity_block"):
        parse_model_config(fields, where="a test")


def test_every_architecture_parses_and_nano_has_the_one_face(nano):
    assert set(architecture_names()) >= {"clippy-nano", "clippy-ti", "clippy-b16", "clip-b16"}
    for name in architecture_names():
        assert load_architecture(name).name == name
    assert isinstance(nano, VisionLanguageModel)


def test_building_is_seeded_and_leaves_the_global_generator_alone(nano):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = build_model(load_architecture("clippy-nano"), seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(nano.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    model = nano_with()
    images = torch.randn(2, 3, 64, 64)
    expected = model.embed_patches(images), model.embed_texts(["a star on grass"])
    model.cuda()
    torch.testing.assert_close(model.embed_patches(images.cuda()).cpu(), expected[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.embed_texts(["a star on grass"]).cpu(), expected[1], atol=1e-3, rtol=1e-3)


def test_texts_of_patches_are_the_second_half_where_an_image_is_two_tokens_side_by_side():
    model = build_model(load_architecture("dinov2-text-nano"), seed=1).eval()
    images, texts = torch.randn(2, 3, 64, 96), ["red square", "a ring on grass"]
    tokens = model.image_tokens(images)  # (B,P+N,D/2)
    pooled = torch.cat([tokens[:, 0], tokens[:, 5:].mean(dim=1)], dim=1)
    torch.testing.assert_close(model.embed_images(images), F.normalize(pooled, dim=1))
    assert model.embed_patches(images).shape == (2, 8, 12, 96)
    whole, halves = model.embed_texts(texts), model.embed_patch_texts(texts)
    torch.testing.assert_close(halves, F.normalize(whole[:, 96:], dim=1))
    assert model.embed_patch_texts([]).shape == (0, 96) and model.embed_texts([]).shape == (0, 192)
    first = model.image.project(model.image.features(images)[:, :1])  # the blocks let tokens see each other
    assert not torch.allclose(first, tokens[:, :1], atol=1e-4)


def test_one_vector_for_both_where_it_is_not(nano):
    assert torch.equal(nano.embed_patch_texts(["grass"]), nano.embed_texts(["grass"]))


def test_two_tokens_side_by_side_need_an_even_width():
    fields = load_architecture("dinov2-text-nano").model_dump()
    for change, says in (({"embed_dim": 191}, "even number"), ({"embed_dim": 96}, "96 features; 48 are needed")):
        with pytest.raises(ClippyError, match=says):
            build_model(parse_model_config(fields | change, where="here"))
