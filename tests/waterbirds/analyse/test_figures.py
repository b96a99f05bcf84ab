"""Drift, explained variance and pictures, against figures by hand, plain loops and other ways to the same sums."""

import math

import numpy as np
import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.analyse.figures import PictureMethod, drift, picture, variance_explained, variance_shares


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_drift_of_two_directions_by_hand():
    right, up = [1.0, 0.0], [0.0, 1.0]
    found = drift(np.array([[right, right], [right, up]]))
    assert found.per_bird == pytest.approx([0.0, 1 - math.cos(math.pi / 4)])
    assert found.mean == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.0, 1 - math.cos(math.pi / 4)))
    assert found.backgrounds == 2
    assert drift(np.array([[right, [-1.0, 0.0]]])).per_bird == pytest.approx([1.0])


def test_drift_agrees_with_cosines_to_the_normalized_mean(rng):
    embeddings = unit(rng.normal(size=(30, 5, 16)) + 2).astype(np.float32)
    expected = [1 - np.mean([e @ unit(bird.mean(axis=0)) for e in bird]) for bird in embeddings.astype(np.float64)]
    found = drift(embeddings)
    np.testing.assert_allclose(found.per_bird, expected, atol=1e-6)
    assert found.interval.low < found.mean < found.interval.high
    # 1.96 standard errors each side; 2000 resamples know a limit to a few per cent.
    error = np.std(expected) / math.sqrt(30)
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert drift(embeddings).interval == found.interval
    assert (drift(np.repeat(embeddings[:, :1], 5, axis=1)).per_bird < 1e-12).all()


def test_drift_refuses_what_has_no_direction(rng):
    with pytest.raises(ValueError, match="unit length"):
        drift(rng.normal(size=(2, 3, 4)) * 9)
    with pytest.raises(ValueError, match="or there are none"):
        drift(np.zeros((0, 3, 4)))
    with pytest.raises(ValueError, match="3 dimensions"):
        drift(np.zeros((3, 4)))
    with pytest.raises(ClippyError, match="not finite"):
        drift(np.full((1, 2, 3), np.nan))


def test_variance_by_hand():
    """Groups (1, 2) and (4, 5) around the mean 3: between them 4 * 1.5**2 = 9, within them 4 * 0.5**2 = 1."""
    embeddings = np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0], [5.0, 7.0]])
    assert variance_explained(embeddings, np.array([0, 0, 1, 1])) == pytest.approx(0.9)
    assert variance_explained(embeddings, np.array([5, 8, -1, 2])) == pytest.approx(1.0)
    assert variance_explained(embeddings, np.array([0, 0, 0, 0])) == pytest.approx(0.0)


def test_variance_agrees_with_group_means(rng):
    embeddings, labels = rng.normal(size=(50, 8)), rng.integers(3, size=50)
    embeddings[:, 0] += labels
    mean = embeddings.mean(axis=0)
    between = sum((labels == g).sum() * ((embeddings[labels == g].mean(axis=0) - mean) ** 2).sum() for g in range(3))
    assert variance_explained(embeddings, labels) == pytest.approx(between / ((embeddings - mean) ** 2).sum())


def test_shares_of_a_balanced_design_are_those_of_each_factor_alone(rng):
    birds, places = np.repeat([0, 0, 1, 1], 6), np.tile([0, 1], 12)
    embeddings = rng.normal(size=(24, 5)) + np.outer(birds, np.arange(5)) - 0.5 * places[:, None]
    found = variance_shares(embeddings, birds, places)
    assert found.bird == pytest.approx(variance_explained(embeddings, birds))
    assert found.place == pytest.approx(variance_explained(embeddings, places))


def test_shares_of_an_unbalanced_design_agree_with_what_the_other_factor_leaves(rng):
    """Frisch-Waugh-Lovell: take the other factor's group means off both the embeddings and the factor, then project."""
    birds = np.repeat([0, 0, 0, 1, 1, 2], 10)
    places = np.where(rng.random(60) < 0.8, birds > 0, birds == 0).astype(int)
    embeddings = rng.normal(size=(60, 6)) + 2.0 * birds[:, None] + places[:, None]

    def without(columns, labels):
        return columns - np.stack([columns[labels == label].mean(axis=0) for label in labels])

    def share(own, other):
        columns = np.stack([own == level for level in np.unique(own)[1:]], axis=1).astype(float)
        q, _ = np.linalg.qr(without(columns, other))
        fitted = q @ (q.T @ without(embeddings, other))
        return (fitted**2).sum() / ((embeddings - embeddings.mean(axis=0)) ** 2).sum()

    found = variance_shares(embeddings, birds, places)
    assert found.bird == pytest.approx(share(birds, places))
    assert found.place == pytest.approx(share(places, birds))
    assert found.bird < variance_explained(embeddings, birds) - 0.05
    swapped = variance_shares(embeddings, places, birds)
    assert (swapped.place, swapped.bird) == pytest.approx((found.bird, found.place))


def test_confounded_factors_have_nothing_of_their_own(rng):
    labels = np.repeat([0, 1], 10)
    found = variance_shares(rng.normal(size=(20, 3)) + labels[:, None], labels, 1 - labels)
    assert (found.bird, found.place) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_what_does_not_vary_has_no_share():
    # the mean of six times 0.1 is not 0.1
    alike, labels = np.full((6, 3), 0.1), np.array([0, 0, 0, 1, 1, 1])
    assert math.isnan(variance_explained(alike, labels))
    shares = variance_shares(alike, labels, labels)
    assert math.isnan(shares.bird)
    assert math.isnan(shares.place)
    assert math.isnan(variance_explained(np.zeros((0, 3)), labels[:0]))
    with pytest.raises(ValueError, match="with labels of shape"):
        variance_explained(alike, labels[:4])
    with pytest.raises(ClippyError, match="not finite"):
        variance_explained(alike * np.inf, labels)


@pytest.mark.parametrize("method", PictureMethod)
def test_pictures_are_deterministic_and_part_what_is_apart(rng, method):
    labels = np.repeat([0, 1], 12)
    embeddings = unit(rng.normal(size=(24, 10)) * 0.1 + np.eye(10)[labels]).astype(np.float32)
    points = picture(embeddings, method, seed=3)
    assert points.shape == (24, 2)
    np.testing.assert_array_equal(points, picture(embeddings, method, seed=3))
    assert variance_explained(points, labels) > 0.7


def test_pca_keeps_what_two_components_can(rng):
    embeddings = rng.normal(size=(40, 6)) * [9, 5, 1, 1, 1, 1]
    centred = embeddings - embeddings.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(picture(embeddings, PictureMethod.PCA), axis=0), singular[:2])


@pytest.mark.parametrize("method", PictureMethod)
def test_pictures_of_little(rng, method):
    assert np.isfinite(picture(rng.normal(size=(4, 3)), method)).all()
    assert not picture(np.full((5, 3), 0.1), method).any()
    with pytest.raises(ClippyError, match="needs 4 images or more, there are 3"):
        picture(rng.normal(size=(3, 3)), method)
    with pytest.raises(ClippyError, match="not finite"):
        picture(np.full((5, 3), np.inf), method)
