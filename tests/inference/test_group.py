"""Bottom-up grouping: components against scikit-learn, the sign rule, clusters that are there to be found."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import GroupMethod
from clippy_cli.inference.group import Components, group_patches, pca_picture


def skewed_tokens(count=200, width=12, seed=0):
    draw = np.random.default_rng(seed)
    scales = np.linspace(3, 0.3, width)
    return torch.from_numpy(
        (draw.gamma(1.5, size=(count, width)) * scales) @ np.linalg.qr(draw.normal(size=(width, width)))[0]
    )


def quadrants(noise=0.05):
    """(12,16,6): four blocks of patches, each around a direction of its own."""
    blocks = torch.zeros(12, 16, dtype=torch.long)
    blocks[:6, 8:], blocks[6:, :8], blocks[6:, 8:] = 1, 2, 3
    patches = F.one_hot(blocks, 6) + noise * torch.randn(12, 16, 6, generator=torch.Generator().manual_seed(0))
    return blocks, F.normalize(patches, dim=-1)


@pytest.mark.parametrize("count", [200, 9])  # more than there are dimensions, and fewer
def test_components_are_those_of_scikit_learn_turned_by_the_rule(count):
    tokens = skewed_tokens()[:count]
    components = Components(tokens)
    mean, directions = components.mean, components.directions(8)
    reference = PCA(8, svd_solver="full").fit(tokens.numpy())
    np.testing.assert_allclose(mean, reference.mean_)
    cosines = (directions.numpy() * reference.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-9)
    assert (((tokens - mean) @ directions.T).pow(3).sum(dim=0) > 0).all()


def test_the_sign_rule_does_not_depend_on_the_solver(monkeypatch):
    tokens = skewed_tokens(seed=1)
    expected = Components(tokens).directions(6)
    solve = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (solve(matrix)[0], -solve(matrix)[1]))
    flipped = Components(tokens).directions(6)
    torch.testing.assert_close(flipped, expected)


def test_pca_gives_each_patch_the_component_of_highest_cosine():
    tokens = F.normalize(skewed_tokens(), dim=1)
    components = Components(tokens)
    mean, directions = components.mean, components.directions(8)
    expected = (F.normalize(tokens - mean, dim=1) @ directions.T).argmax(dim=1)
    found = group_patches(tokens.view(10, 20, 12), 10, 20).codes.ravel()
    pairs = set(zip(expected.tolist(), found.tolist(), strict=True))
    assert len(pairs) == len(np.unique(expected)) == found.max()  # one to one: only the numbering differs


@pytest.mark.parametrize("method", ["kmeans", "spectral"])
def test_clusters_that_are_there_are_found(method):
    blocks, patches = quadrants()
    found = group_patches(patches, 48, 64, groups=4, method=method)
    expected = blocks.repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()
    assert len(set(zip(expected.ravel().tolist(), found.codes.ravel().tolist(), strict=True))) == 4
    assert found.pixels.tolist() == [0, 768, 768, 768, 768]


@pytest.mark.parametrize("method", GroupMethod)
def test_groups_come_largest_first_and_the_same_each_time(method):
    patches = F.normalize(skewed_tokens(), dim=1).view(10, 20, 12).float()
    first = group_patches(patches, 83, 161, groups=5, method=method)
    again = group_patches(patches.clone(), 83, 161, groups=5, method=method)
    np.testing.assert_array_equal(first.codes, again.codes)
    assert first.pixels[0] == 0
    assert (np.diff(first.pixels[1:]) <= 0).all()
    np.testing.assert_array_equal(np.bincount(first.codes.ravel()), first.pixels)


@pytest.mark.parametrize("method", GroupMethod)
def test_an_image_of_one_colour_does_not_break(method):
    patches = F.normalize(torch.ones(5, 6, 12), dim=-1)
    assert group_patches(patches, 20, 24, groups=3, method=method).shares.sum() == pytest.approx(1)
    assert (pca_picture(patches) == 128).all()


@pytest.mark.parametrize("method", GroupMethod)
def test_more_groups_than_patches_is_an_error(method):
    with pytest.raises(ClippyError, match="at most 3 groups"):
        group_patches(torch.randn(2, 2, 12), 8, 8, groups=4, method=method)


def test_the_picture_shows_components_as_channels():
    _, patches = quadrants(noise=0.0)
    picture = pca_picture(patches)
    assert picture.shape == (12, 16, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4
    assert picture.min() == 0
    assert picture.max() == 255
