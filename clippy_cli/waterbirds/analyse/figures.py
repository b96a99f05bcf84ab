"""What of an embedding is the bird and what is the background. B birds, P backgrounds, N images, D joint embedding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.bootstrap import Interval, paired_bootstrap_mean

Embeddings = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

_UNIT_TOLERANCE = 0.02  # bfloat16 rounds each number by up to 0.4 %
_PERPLEXITY = 30.0


class PictureMethod(StrEnum):
    """How :func:`picture` brings embeddings down to two dimensions."""

    PCA = "pca"
    TSNE = "tsne"

    @property
    def written(self) -> str:
        """As papers write it."""
        return {"pca": "PCA", "tsne": "t-SNE"}[self]


@dataclass(frozen=True)
class DriftSummary:
    """How far backgrounds move a bird's embedding: cosine distances in [0, 1], 0 where the background is ignored.

    Attributes:
        per_bird: (B,) mean distance of each bird's embeddings to their average.
        mean: over birds.
        interval: 95 % bootstrap interval of the mean, birds drawn again.
        backgrounds: P. Figures compare at equal P only: of few embeddings each has a larger part in the average.
    """

    per_bird: Floats
    mean: float
    interval: Interval
    backgrounds: int


@dataclass(frozen=True)
class VarianceShares:
    """Shares of the total variance in [0, 1] that only the bird, and only the background, explains; NaN without any."""

    bird: float
    place: float


def drift(embeddings: Embeddings, *, resamples: int = 2000, seed: int = 0) -> DriftSummary:
    """Unit embeddings (B,P,D) of B birds, each pasted on the same P backgrounds -> their drift from their average.

    A bird's average is the mean of its embeddings, brought back to unit length; the mean cosine with it is then the
    length of the mean before that. Embeddings that cancel out have no average and count as distance 1.

    Raises:
        ClippyError: an embedding that is not finite.
        ValueError: no bird, no background, or embeddings that are not of unit length.
    """
    vectors = _checked(embeddings, 3)
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)  # (B,P,1)
    if not vectors.size or np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
        raise ValueError(f"embeddings of shape {vectors.shape} are not of unit length, or there are none")
    averages = (vectors / lengths).mean(axis=1)  # (B,P,D) -> (B,D)
    per_bird: Floats = np.maximum(1 - np.linalg.norm(averages, axis=1), 0.0)  # rounding may leave -1e-16
    interval = paired_bootstrap_mean([0.0] * len(per_bird), per_bird.tolist(), resamples=resamples, seed=seed)
    if interval is None:
        raise ValueError(f"{resamples} resamples make no interval")
    return DriftSummary(per_bird, float(per_bird.mean()), interval, vectors.shape[1])


def variance_explained(embeddings: Embeddings, labels: Labels) -> float:
    """Share of the variance of embeddings (N,D) that lies between the groups of ``labels`` (N,), in [0, 1].

    Eta squared: the sum of squares between groups over the total, each over all dimensions. Labels that mean nothing
    still explain about (groups - 1) / (N - 1). NaN where the embeddings do not vary.

    Raises:
        ClippyError: an embedding that is not finite.
        ValueError: not one label an image.
    """
    centred = _centred(embeddings, labels)
    total = _squares(centred)
    return _share(total - _residual(centred, _indicators(labels)), total)


def variance_shares(embeddings: Embeddings, birds: Labels, places: Labels) -> VarianceShares:
    """Shares of the variance of embeddings (N,D) that are the bird's alone and the place's alone.

    Marginal (type II) sums of squares over the total: what each factor (N,) adds to a model that holds the other, no
    interaction, so that neither comes first. Where groups are equally large, each is :func:`variance_explained`. Where
    birds mostly stand in their own habitat, variance that both factors explain counts for neither; fully confounded
    factors have 0 and 0.

    Raises:
        ClippyError: an embedding that is not finite.
        ValueError: not one bird and one place an image.
    """
    centred = _centred(embeddings, birds, places)
    bird, place = _indicators(birds), _indicators(places)
    both = _residual(centred, np.hstack([bird, place]))
    total = _squares(centred)
    return VarianceShares(
        _share(_residual(centred, place) - both, total), _share(_residual(centred, bird) - both, total)
    )


def picture(embeddings: Embeddings, method: PictureMethod, seed: int = 0) -> Floats:
    """Embeddings (N,D) -> points (N,2), the same from run to run on one machine; all at 0 where they do not vary.

    PCA keeps distances along the two directions of most variance and needs no seed. t-SNE (van der Maaten and Hinton
    2008), started from PCA at perplexity 30 or a third of N - 1, keeps neighbours; between clusters its distances
    mean nothing. Both run on one thread, as sums over threads differ.

    Raises:
        ClippyError: fewer than 4 images, or an embedding that is not finite.
    """
    vectors = _centred(embeddings)
    images = len(vectors)
    if images < 4:
        raise ClippyError(f"A picture of embeddings needs 4 images or more, there are {images}", "Take more images.")
    if not vectors.any():
        return np.zeros((images, 2))
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if method == PictureMethod.PCA:
        reduction = PCA(2, svd_solver="full")
    else:
        perplexity = min(_PERPLEXITY, (images - 1) / 3)
        reduction = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    with threadpool_limits(limits=1):
        return np.asarray(reduction.fit_transform(vectors), dtype=np.float64)


def _checked(embeddings: Embeddings, dimensions: int) -> Floats:
    if embeddings.ndim != dimensions:
        raise ValueError(f"embeddings have shape {embeddings.shape}, not {dimensions} dimensions")
    if not np.isfinite(embeddings).all():
        raise ClippyError("The model gave embeddings that are not finite", "Check the model's weights.")
    return embeddings.astype(np.float64)


def _centred(embeddings: Embeddings, *factors: Labels) -> Floats:
    """(N,D) with the mean over images taken off; exactly 0 where images do not differ."""
    vectors = _checked(embeddings, 2)
    if any(factor.shape != (len(vectors),) for factor in factors):
        raise ValueError(f"{len(vectors)} embeddings with labels of shape {[factor.shape for factor in factors]}")
    if not len(vectors):
        return vectors
    return np.where(np.ptp(vectors, axis=0) > 0, vectors - vectors.mean(axis=0), 0.0)


def _indicators(labels: Labels) -> Floats:
    """(N,) -> (N,L): 1 in the column of each image's level."""
    indicators: Floats = np.equal.outer(labels, np.unique(labels)).astype(np.float64)
    return indicators


def _residual(vectors: Floats, design: Floats) -> float:
    """The squares that least squares on ``design`` (N,L) leaves of ``vectors`` (N,D)."""
    fit, *_ = np.linalg.lstsq(design, vectors, rcond=None)  # columns may depend on each other: the fit does not
    return _squares(vectors - design @ fit)


def _squares(vectors: Floats) -> float:
    return float(np.square(vectors).sum())


def _share(part: float, total: float) -> float:
    """In [0, 1], whatever rounding did; NaN of nothing."""
    return min(max(part / total, 0.0), 1.0) if total > 0 else float("nan")
