"""Views with other patches, by their form or a dense mode: what changes, what stays, and what a proxy sees."""

import copy

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import Preprocess, VisionLanguageModel
from clippy_cli.model.build import build_model
from clippy_cli.model.dense.dense import proxy_patches
from clippy_cli.model.dense.timm_vit import vit_tokens
from clippy_cli.model.patch_forms import patch_form, with_dense_mode, with_patch_form
from clippy_cli.model.pooling import normalized
from clippy_cli.model.registry import load_architecture


class Eye:
    """Stands in for a proxy model, and keeps the pixels it was given."""

    device = torch.device("cpu")

    def __init__(self, patch_size):
        self.preprocess = Preprocess((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), patch_size, 32)

    def embed_patches(self, images):
        self.seen = images
        return torch.ones(len(images), *(side // self.preprocess.patch_size for side in images.shape[-2:]), 1)


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(3))


def test_patches_are_projected_centred_and_normalised_as_the_model_does(nano, images):
    nano = copy.deepcopy(nano)
    nano.patch_mean.copy_(torch.randn(96))
    dense = with_dense_mode(nano, "sclip")
    assert isinstance(dense, VisionLanguageModel)
    assert dense.name == "clippy-nano+sclip"
    projected = nano.image.project(vit_tokens(nano.image.trunk, images, "sclip"))[:, 1:]
    for form, offset in (("plain", 0.0), ("centred", nano.patch_mean)):
        expected = normalized(projected - offset).view(2, 8, 6, -1)
        torch.testing.assert_close(with_patch_form(dense, form).embed_patches(images), expected)
    assert not torch.allclose(dense.embed_patches(images), nano.embed_patches(images), atol=1e-3)


def test_all_but_patches_stays_and_so_does_the_model_itself(nano, images):
    before = nano.embed_patches(images)
    dense = with_dense_mode(nano, "proxyclip", nano)
    texts = dense.embed_texts(["a dog"])
    dense.embed_patches(images)
    torch.testing.assert_close(dense.embed_images(images), nano.embed_images(images))
    torch.testing.assert_close(dense.score_images(images, texts), nano.score_images(images, texts))
    torch.testing.assert_close(nano.embed_patches(images), before, rtol=0, atol=0)
    assert dense.state_dict().keys() == nano.state_dict().keys()
    assert with_dense_mode(nano, "plain") is nano
    assert not with_patch_form(dense, "plain").config.inference.centre_patches
    assert nano.config.inference.centre_patches


def test_a_form_is_a_view_that_shares_the_weights_and_goes_with_a_dense_mode(nano, images):
    before = nano.embed_patches(images)
    plain = with_patch_form(nano, "plain")
    assert patch_form(plain) == "plain" and patch_form(nano) == "centred" and plain is not nano
    assert all(a is b for a, b in zip(plain.parameters(), nano.parameters(), strict=True))
    assert with_patch_form(plain, "plain") is plain
    one = with_dense_mode(plain, "naclip").embed_patches(images)
    other = with_patch_form(with_dense_mode(nano, "naclip"), "plain").embed_patches(images)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(nano.embed_patches(images), before, rtol=0, atol=0)


def test_a_proxy_gets_the_same_pixels_under_its_own_normalisation(nano):
    pixels = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    eye = Eye(patch_size=16)
    features = proxy_patches(eye, nano.preprocess.normalize(pixels), nano.preprocess)
    assert features.shape == (2, 4, 3, 1)
    torch.testing.assert_close(eye.seen, eye.preprocess.normalize(pixels), atol=2e-6, rtol=0)


def test_a_proxy_whose_patch_does_not_fit_sees_the_nearest_size_that_does(nano, images):
    eye = Eye(patch_size=14)
    proxy_patches(eye, images, nano.preprocess)
    assert eye.seen.shape[-2:] == (70, 42)


def test_models_without_attention_are_refused():
    with pytest.raises(ClippyError, match="convolutional trunk, test_efficientnet"):
        with_dense_mode(build_model(load_architecture("align-nano"), seed=0), "naclip")
