"""What the adapters compute, against the libraries' own answers on the same weights."""

import pytest
import torch
import torch.nn.functional as F

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.precision import precision_of
from clippy_cli.model.sources.loading import load_model

TEXTS = ["a photo of a dog", "red grass"]


def images_for(model, seed=0):
    side = model.preprocess.resolution
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def load(source_of):
    return lambda name, **options: load_model(source_of(name), device="cpu", **options)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-rn", "tiny-timm", "clip", "siglip", "align", "groupvit"])
def test_face(load, name):
    model = load(name)
    assert isinstance(model, VisionLanguageModel) and model.reads_texts
    patch = model.preprocess.patch_size
    images = torch.randn(2, 3, 4 * patch, 6 * patch)
    patches, texts = model.embed_patches(images), model.embed_texts(TEXTS)
    assert patches.shape[:3] == (2, 4, 6) and patches.shape[3] == texts.shape[1]
    for vectors in (patches, texts, model.embed_images(images)):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))
    assert model.score_images(images, texts).shape == (2, 2)
    torch.testing.assert_close(model.embed_texts([TEXTS[1]])[0], texts[1], atol=1e-5, rtol=1e-5)  # padding adds nothing
    assert model.embed_texts([]).shape == (0, texts.shape[1])
    with pytest.raises(ClippyError, match=f"patches of {patch}"):
        model.embed_patches(torch.zeros(1, 3, patch + 1, patch))


@pytest.mark.parametrize("name", ["tiny-vit", "clip", "groupvit"])
def test_bf16_is_near_float32(load, name):
    exact, half = load(name), load(name, precision="bf16")
    assert (precision_of(exact), precision_of(half)) == ("fp32", "bf16")
    near, wanted = half.embed_patches(images_for(exact)), exact.embed_patches(images_for(exact))
    assert near.dtype == torch.float32 and not torch.equal(near, wanted)
    assert F.cosine_similarity(near, wanted, dim=-1).mean() > 0.99
    assert torch.equal(half.embed_texts(TEXTS), exact.embed_texts(TEXTS))


@pytest.mark.parametrize("name", ["clip", "siglip", "tiny-vit"])
def test_many_texts_are_those_one_by_one(load, name):
    model = load(name)
    texts = [" ".join(["dog"] * (1 + row % 5)) for row in range(300)]
    one_by_one = torch.cat([model.embed_texts([text]) for text in texts[:5]])
    torch.testing.assert_close(model.embed_texts(texts), one_by_one.repeat(60, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["clip", "siglip", "align", "groupvit"])
def test_logits_are_those_of_transformers(load, name):
    model = load(name)
    images = images_for(model)
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        output = model.module(pixel_values=images, **tokens)
    logits = model.defaults.logit_scale * model.score_images(images, model.embed_texts(TEXTS))
    bias = getattr(model.module, "logit_bias", torch.zeros(()))
    torch.testing.assert_close(logits + bias, output.logits_per_image, atol=1e-4, rtol=1e-4)


def test_groupvit_patches_give_its_segmentation_logits(load):
    model = load("groupvit")
    images = images_for(model)
    with torch.no_grad():
        output = model.module(pixel_values=images, **model.tokenize(TEXTS), output_segmentation=True)
        patches = model.patch_vectors(images)  # of the length that their groups give them
    logits = torch.einsum("bhwd,kd->bkhw", patches, model.embed_texts(TEXTS))
    pixels = (
        F.interpolate(logits, scale_factor=8, mode="bilinear") * model.defaults.logit_scale**2
    )  # as transformers do
    torch.testing.assert_close(pixels, output.segmentation_logits, atol=1e-3, rtol=1e-4)


def test_clip_of_open_clip_and_of_one_more_size(load):
    model = load("tiny-vit")
    images = images_for(model)
    with torch.no_grad():
        expected = model.module.encode_image(images, normalize=True)
    torch.testing.assert_close(model.embed_images(images), expected)
    larger = F.interpolate(images, (48, 40), mode="bicubic")
    smaller = F.interpolate(larger, (32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.embed_images(larger), model.embed_images(smaller))


@pytest.mark.parametrize("name", ["tiny-timm", "siglip"])
def test_patch_of_an_attention_pooling_is_the_embedding_of_an_image_of_that_patch_alone(load, name):
    """With one token there is nothing to attend to but itself, so a one-patch image says what its patch must be."""
    model = load(name)
    patch = model.preprocess.patch_size
    image = torch.randn(1, 3, patch, patch)
    with torch.no_grad():
        if name == "siglip":
            vision = model.module.vision_model
            whole = vision(pixel_values=image, interpolate_pos_encoding=True).pooler_output
        else:
            whole = model.module.visual(image)
    torch.testing.assert_close(model.embed_patches(image)[:, 0, 0], F.normalize(whole, dim=-1))


def test_resnet_patches_are_its_pooling_at_one_place(load):
    model = load("tiny-rn")
    visual, images = model.module.visual, images_for(model)
    with torch.no_grad():
        features = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
        token = features[:, :, 1, 0] @ visual.attnpool.v_proj.weight.T + visual.attnpool.v_proj.bias
        expected = F.normalize(visual.attnpool.c_proj(token), dim=-1)
    torch.testing.assert_close(model.embed_patches(images)[:, 1, 0], expected, atol=1e-5, rtol=1e-5)


def test_timm_trunk(load):
    model = load("test_vit")
    images = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        tokens = model.module.forward_features(images)
    prefix = model.module.num_prefix_tokens
    torch.testing.assert_close(
        model.embed_patches(images)[0], F.normalize(tokens[0, prefix:], dim=-1).view(3, 5, -1), atol=1e-5, rtol=1e-5
    )
    assert not model.reads_texts
    for refused in (lambda: model.embed_texts(["a"]), lambda: model.score_images(images, torch.zeros(1, 64))):
        with pytest.raises(ClippyError, match="trained without texts"):
            refused()
