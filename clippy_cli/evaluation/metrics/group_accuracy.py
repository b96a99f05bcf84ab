"""Accuracy in the four groups of Waterbirds, and the figures that the literature makes of them.

N images, R resamples. A group is 2 * bird + place: bird 0 is a land bird and 1 a water bird, place 0 is land and 1
water. So groups 0 and 3 show a bird where it belongs and groups 1 and 2 where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clippy_cli.evaluation.metrics.bootstrap import Interval, percentile_interval

GROUPS = 4

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]
FourInts = tuple[int, int, int, int]


@dataclass(frozen=True)
class GroupSummary:
    """Hits and images of each group; every figure derives from these. Accuracies are in [0, 1].

    An empty group has no accuracy. Where that leaves a figure undefined it is None, never 0 and never NaN.
    """

    correct: FourInts
    counts: FourInts

    @property
    def accuracies(self) -> tuple[float | None, float | None, float | None, float | None]:
        """Of each group; None for an empty one."""
        a, b, c, d = (hits / images if images else None for hits, images in zip(self.correct, self.counts, strict=True))
        return a, b, c, d

    @property
    def worst_group(self) -> tuple[int, float] | None:
        """The lowest accuracy of a group with images, and whose: (group, accuracy), the first of equals."""
        known = [(accuracy, group) for group, accuracy in enumerate(self.accuracies) if accuracy is not None]
        if not known:
            return None
        accuracy, group = min(known)
        return group, accuracy

    @property
    def mean_over_groups(self) -> float | None:
        """The plain mean over the groups that have images."""
        known = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return sum(known) / len(known) if known else None

    @property
    def average(self) -> float | None:
        """The share of all images that hit; a large group weighs more."""
        images = sum(self.counts)
        return sum(self.correct) / images if images else None

    def weighted_mean(self, train_counts: Sequence[int] | None) -> float | None:
        """The mean over groups weighted by their training images: the "average accuracy" of Sagawa et al. 2020.

        None without training counts, and where a group that has training images has none here: to share its weight
        among the others would make another figure.

        Raises:
            ValueError: not four counts, or a negative one.
        """
        if train_counts is None:
            return None
        if len(train_counts) != GROUPS or min(train_counts) < 0:
            raise ValueError(f"training counts are four numbers from 0, not {list(train_counts)}")
        total, weighted = sum(train_counts), 0.0
        for accuracy, weight in zip(self.accuracies, train_counts, strict=True):
            if weight and accuracy is None:
                return None
            weighted += weight * (accuracy or 0.0)
        return weighted / total if total else None

    def gap(self, bird: int) -> float | None:
        """A bird's accuracy where it belongs minus where it does not, in [-1, 1] (arXiv 2210.09996).

        Raises:
            ValueError: ``bird`` is neither 0 nor 1.
        """
        matched, mismatched = (self.accuracies[group] for group in gap_groups(bird))
        return None if matched is None or mismatched is None else matched - mismatched


def gap_groups(bird: int) -> tuple[int, int]:
    """The groups of a bird where it belongs and where it does not: (0, 1) for a land bird, (3, 2) for a water bird.

    Raises:
        ValueError: ``bird`` is neither 0 nor 1.
    """
    if bird not in (0, 1):
        raise ValueError(f"bird {bird} is neither 0 (land bird) nor 1 (water bird)")
    return 3 * bird, bird + 1


def summarize_groups(hits: Bools, groups: Ints) -> GroupSummary:
    """Whether each image hits (N,) and its group (N,) -> the summary; N may be 0.

    Raises:
        ValueError: arrays of different length, hits that are not bool, or a group outside 0..3.
    """
    if hits.shape != groups.shape or hits.ndim != 1 or hits.dtype != np.bool_:
        raise ValueError(f"hits are {hits.dtype} {hits.shape}, groups {groups.shape}: one bool and one group an image")
    return GroupSummary(group_counts(groups[hits]), group_counts(groups))


def group_counts(groups: Ints) -> FourInts:
    """Images of each group: (N,) -> four counts.

    Raises:
        ValueError: a group outside 0..3.
    """
    if outside := groups[(groups < 0) | (groups >= GROUPS)].tolist():
        raise ValueError(f"group {outside[0]} is beyond 0..{GROUPS - 1}")
    a, b, c, d = np.bincount(groups, minlength=GROUPS).tolist()
    return a, b, c, d


def bootstrap_gap(hits: Bools, groups: Ints, bird: int, *, resamples: int = 2000, seed: int = 0) -> Interval | None:
    """The 95 % percentile interval of :meth:`GroupSummary.gap`, images drawn again within each group.

    Strata, because the sizes of the groups were set by whoever built the set: to draw over all images would add a
    chance that the gap does not have, and could leave a small group empty. A group that hits always or never does not
    vary at all, so that the interval of a small one is too narrow. None where a group of the bird is empty.
    """
    matched, mismatched = gap_groups(bird)
    accuracies = _resampled_accuracies(summarize_groups(hits, groups), resamples, seed)
    return percentile_interval([accuracies[:, matched] - accuracies[:, mismatched]])


def bootstrap_worst_group(hits: Bools, groups: Ints, *, resamples: int = 2000, seed: int = 0) -> Interval | None:
    """The 95 % percentile interval of the worst group's accuracy, images drawn again within each group.

    The worst group is found anew in each resample, so that the interval's mean lies at or below the figure itself, as
    a minimum over groups does. Empty groups are left out; None where all are empty.
    """
    summary = summarize_groups(hits, groups)
    counted = np.array(summary.counts) > 0
    if not counted.any():
        return None
    return percentile_interval([_resampled_accuracies(summary, resamples, seed)[:, counted].min(axis=1)])


def _resampled_accuracies(summary: GroupSummary, resamples: int, seed: int) -> NDArray[np.float64]:
    """(R,4), NaN for an empty group.

    To draw n images with replacement from n, of which k hit, is n independent draws that hit with probability k/n: the
    hits of a resample are binomial, and need no indices.
    """
    correct, counts = np.array(summary.correct), np.array(summary.counts)
    hits = np.random.default_rng(seed).binomial(counts, correct / np.maximum(counts, 1), size=(resamples, GROUPS))
    filled = np.broadcast_to(counts > 0, hits.shape)
    accuracies: NDArray[np.float64] = np.divide(hits, counts, out=np.full(hits.shape, np.nan), where=filled)
    return accuracies
