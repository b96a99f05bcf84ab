"""Bottom-up grouping (arXiv 2210.09996, section 3.5): patch embeddings alone -> groups of pixels."""

from __future__ import annotations

import warnings
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import DEFAULT_GROUPS, GroupMethod
from clippy_cli.inference.label_map import LabelMap, paint

MAX_SPECTRAL = 4096
_SEED = 0
_NOISE = 1e-10  # a component with less than this share of the first one's variance has no direction of its own


def group_patches(
    patches: Tensor,
    height: int,
    width: int,
    *,
    groups: int = DEFAULT_GROUPS,
    method: GroupMethod = GroupMethod.PCA,
    components: Components | None = None,
) -> LabelMap:
    """(h,w,D) patch embeddings -> a map of height x width pixels with codes 1 to G, the largest group first.

    ``pca`` takes the principal components as centres and assigns by cosine, patches centred on their mean (else the
    first component is that mean, and takes nearly all of them); ``kmeans`` and ``spectral`` are scikit-learn's, with a
    fixed seed. Scores on the grid are upsampled before the best is taken, so that borders are smooth. G is ``groups``,
    or fewer where some centres win no pixel. ``components`` are those of the patches, where they are known. ClippyError
    where there are too few patches.
    """
    h, w, width_in = patches.shape
    tokens = patches.detach().cpu().double().reshape(h * w, width_in)  # (N,D)
    if method is GroupMethod.SPECTRAL and h * w > MAX_SPECTRAL:
        raise ClippyError(
            f"Spectral grouping takes at most {MAX_SPECTRAL} patches, since it compares all pairs; here are {w}x{h}",
            "Lower --resolution, or use --method kmeans.",
        )
    limit = min(h * w - 1, width_in) if method is GroupMethod.PCA else h * w - 1
    if not 1 <= groups <= limit:
        raise ClippyError(
            f"{w}x{h} patches of {width_in} values make at most {limit} groups by {method}; {groups} were asked for",
            "Lower --groups, or raise --resolution to get more patches.",
        )
    if method is GroupMethod.PCA:
        scores = _pca_scores(components or Components(tokens), groups)  # (N,G)
    else:
        scores = _SCORES[method](tokens, groups)
    painted = paint(scores.T.reshape(-1, h, w).float(), height, width, range(1, scores.shape[1] + 1))
    return _largest_first(painted)


class Components:
    """The principal components of one photo's tokens (N,D), computed once, when they are first wanted."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens.detach().cpu().double()
        self.mean = self.tokens.mean(dim=0)  # (D,)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances and, as columns, directions; or those of the N x N products where there are fewer tokens than
        dimensions, which have the same variances and give the same directions in less time."""
        centred = self.tokens - self.mean
        few = len(centred) < centred.shape[1]
        return _eigh_on_one_thread(centred @ centred.T if few else centred.T @ centred)  # ascending

    def directions(self, count: int) -> Tensor:
        """Up to ``count`` unit principal directions (n,D) of the centred tokens.

        They come by falling variance; those without variance are left out (none for a constant image). A direction and
        its negative explain the data equally but pull different patches, so each is turned to where the third moment of
        the projections is positive: towards the few patches that stand out rather than the many that do not.
        """
        centred = self.tokens - self.mean
        variances, columns = self._spectrum
        variances, directions = variances.flip(0)[:count], columns.T.flip(0)[:count]
        directions = directions[(variances > _NOISE * variances[0]) & (variances > _NOISE)]
        if len(centred) < centred.shape[1]:
            directions = F.normalize(directions @ centred, dim=1)  # (n,N) -> (n,D)
        skews = (centred @ directions.T).pow(3).sum(dim=0)  # (n,)
        return directions * torch.where(skews < 0, -1.0, 1.0)[:, None].to(directions)


def _eigh_on_one_thread(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """At this size more threads only wait for each other: for seconds, where other processes share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values, vectors = torch.linalg.eigh(matrix)
    finally:
        torch.set_num_threads(threads)
    return values, vectors


def pca_picture(patches: NDArray[np.float32] | Tensor, components: Components | None = None) -> NDArray[np.uint8]:
    """(h,w,D) patch embeddings -> (h,w,3) uint8: the first three components as red, green and blue.

    Each channel is stretched from its 1st to its 99th percentile; a channel without variance is mid-grey.
    ``components`` are those of the patches, where they are known.
    """
    h, w, _ = patches.shape
    known = components or Components(torch.as_tensor(patches).reshape(h * w, -1))
    projections = ((known.tokens - known.mean) @ known.directions(3).T).numpy()  # (N,n)
    picture = np.full((h * w, 3), 0.5)
    for channel, values in enumerate(projections.T):
        low, high = np.percentile(values, (1, 99))
        if high > low:
            picture[:, channel] = np.clip((values - low) / (high - low), 0, 1)
    rounded: NDArray[np.uint8] = np.rint(picture * 255).astype(np.uint8)
    return rounded.reshape(h, w, 3)  # (N,3) -> (h,w,3)


def _pca_scores(components: Components, groups: int) -> Tensor:
    """(N,n) cosine of each centred token with each component; one column where the tokens are all alike."""
    tokens, directions = components.tokens, components.directions(groups)
    if len(directions) == 0:
        return tokens.new_ones(len(tokens), 1)
    return F.normalize(tokens - components.mean, dim=1) @ directions.T


def _kmeans_scores(tokens: Tensor, groups: int) -> Tensor:
    """(N,D) -> (N,G): 2 x.c - |c|^2, which orders centres as the negative squared distance does and is linear in x."""
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct patches than groups: the empty groups are left out anyway
        fitted = KMeans(groups, n_init=3, random_state=_SEED).fit(tokens.float().numpy())
    centres = torch.from_numpy(fitted.cluster_centers_).double()
    return 2 * tokens @ centres.T - centres.square().sum(dim=1)


def _spectral_scores(tokens: Tensor, groups: int) -> Tensor:
    """(N,D) -> (N,G) one-hot, from the graph of non-negative cosines between tokens."""
    from sklearn.cluster import SpectralClustering

    unit = F.normalize(tokens, dim=1)
    affinity = (unit @ unit.T).clamp(min=0).numpy()  # (N,N)
    clustering = SpectralClustering(groups, affinity="precomputed", assign_labels="cluster_qr", random_state=_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a graph in several parts is fine here
        labels = clustering.fit_predict(affinity)
    return F.one_hot(torch.from_numpy(labels).long(), groups).double()


_SCORES = {
    GroupMethod.KMEANS: _kmeans_scores,
    GroupMethod.SPECTRAL: _spectral_scores,
}


def _largest_first(label_map: LabelMap) -> LabelMap:
    """Renumber codes so that 1 is the largest group, and drop those without a pixel."""
    order = np.argsort(-label_map.pixels, kind="stable")
    order = order[label_map.pixels[order] > 0]
    rank = np.zeros(len(label_map.pixels), np.int16)
    rank[order] = np.arange(1, len(order) + 1)
    keep = np.concatenate(([0], order))
    return LabelMap(rank[label_map.codes], label_map.pixels[keep], label_map.scores[keep])
