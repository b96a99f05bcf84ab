"""Group accuracies against plain loops and scikit-learn, the bootstrap against one that draws images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from clippy_cli.evaluation.metrics.group_accuracy import (
    GroupSummary,
    bootstrap_gap,
    bootstrap_worst_group,
    group_counts,
    summarize_groups,
)

TRAIN = (3498, 184, 56, 1057)
tables = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1)), max_size=40)


def arrays(rows):
    """(bird, place, predicted bird) of each image -> hits, groups."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0] == table[:, 2], 2 * table[:, 0] + table[:, 1]


def image_table(correct, counts):
    groups = np.repeat(np.arange(4), counts)
    hits = np.concatenate([np.arange(n) < k for k, n in zip(correct, counts, strict=True)])
    order = np.random.default_rng(0).permutation(len(groups))
    return hits[order], groups[order]


@settings(max_examples=80, deadline=None)
@given(tables)
def test_agrees_with_scikit_learn_and_with_loops(rows):
    summary = summarize_groups(*arrays(rows))
    expected = [None] * 4
    for bird in (0, 1):
        for place in (0, 1):
            chosen = [row for row in rows if row[:2] == (bird, place)]
            assert summary.counts[2 * bird + place] == len(chosen)
            if chosen:
                birds, _, predicted = zip(*chosen, strict=True)
                recall = recall_score(birds, predicted, labels=[bird], average="macro", zero_division=0)
                assert accuracy_score(birds, predicted) == pytest.approx(recall)
                expected[2 * bird + place] = recall
    known = [value for value in expected if value is not None]
    assert summary.accuracies == pytest.approx(expected)
    if not known:
        assert (summary.worst_group, summary.mean_over_groups, summary.average) == (None, None, None)
        return
    group, worst = summary.worst_group
    assert (group, worst) == (expected.index(min(known)), pytest.approx(min(known)))
    assert summary.mean_over_groups == pytest.approx(np.mean(known))
    birds, _, predicted = zip(*rows, strict=True)
    assert summary.average == pytest.approx(accuracy_score(birds, predicted))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=30),
    st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
def test_the_weighted_mean_is_that_of_a_set_with_the_training_counts(rows, train_counts):
    """scikit-learn with sample weights that turn the groups' sizes into those of the training split."""
    hits, groups = arrays(rows)
    summary = summarize_groups(hits, groups)
    found = summary.weighted_mean(train_counts)
    if not sum(train_counts) or any(w and not n for w, n in zip(train_counts, summary.counts, strict=True)):
        assert found is None
        return
    weights = [train_counts[g] / summary.counts[g] for g in groups]
    assert found == pytest.approx(accuracy_score(np.ones(len(hits)), hits, sample_weight=weights))


def test_figures_by_hand():
    summary = GroupSummary(correct=(90, 30, 20, 24), counts=(100, 60, 50, 30))
    assert summary.accuracies == (0.9, 0.5, 0.4, 0.8)
    assert summary.worst_group == (2, 0.4)
    assert summary.mean_over_groups == pytest.approx(0.65)
    assert summary.average == pytest.approx(164 / 240)
    assert summary.gap(0) == pytest.approx(0.4)
    assert summary.gap(1) == pytest.approx(0.4)
    assert GroupSummary((9, 3, 3, 5), (10, 10, 10, 10)).gap(1) == pytest.approx(0.2)
    expected = (3498 * 0.9 + 184 * 0.5 + 56 * 0.4 + 1057 * 0.8) / 4795
    assert summary.weighted_mean(TRAIN) == pytest.approx(expected)
    assert summary.weighted_mean(None) is None
    assert summary.weighted_mean((0, 0, 0, 0)) is None
    assert GroupSummary((1, 1, 0, 0), (2, 2, 0, 0)).gap(1) is None
    assert GroupSummary((1, 1, 0, 0), (2, 4, 0, 0)).gap(0) == 0.25


def plain_bootstrap(hits, groups, figure, resamples, seed):
    """Image by image, within each group."""
    rng = np.random.default_rng(seed)
    members = [hits[groups == group] for group in range(4)]
    return [figure([np.mean(rng.choice(own, len(own))) for own in members]) for _ in range(resamples)]


@pytest.mark.parametrize(
    ("measure", "figure"),
    [
        (lambda *a, **k: bootstrap_gap(*a, 0, **k), lambda a: a[0] - a[1]),
        (lambda *a, **k: bootstrap_gap(*a, 1, **k), lambda a: a[3] - a[2]),
        (bootstrap_worst_group, min),
    ],
)
def test_the_bootstrap_is_one_that_draws_images(measure, figure):
    """Means and limits of two runs of 4000 resamples differ by Monte Carlo error only.

    A standard deviation s leaves s/63 on a mean, and about 2.7 s/63 on a 2.5 % point of a normal (root of p(1-p)/R over
    its density); the difference of two runs has 1.4 times that, and 5 such errors are allowed. Group accuracies here
    are steps of 1/60 and coarser, so that one more step may part two percentiles.
    """
    hits, groups = image_table((70, 30, 24, 40), (90, 60, 60, 50))
    plain = plain_bootstrap(hits, groups, figure, 4000, 1)
    spread = np.std(plain)
    found = measure(hits, groups, resamples=4000, seed=2)
    assert found.mean == pytest.approx(np.mean(plain), abs=5 * 1.4 * spread / 63)
    limits = np.percentile(plain, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(limits, abs=5 * 1.4 * 2.7 * spread / 63 + 1 / 60)
    assert found == measure(hits, groups, resamples=4000, seed=2)
    assert found != measure(hits, groups, resamples=4000, seed=3)


def test_the_gaps_interval_is_as_wide_as_binomials_make_it():
    hits, groups = image_table((800, 500, 10, 10), (1000, 1000, 20, 20))
    found = bootstrap_gap(hits, groups, 0)
    width = 2 * 1.96 * math.sqrt(0.8 * 0.2 / 1000 + 0.5 * 0.5 / 1000)
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found.excludes_zero
    assert not bootstrap_gap(hits, groups, 1).excludes_zero


def test_empty_groups_leave_no_gap_but_a_worst_group():
    hits, groups = image_table((5, 0, 3, 0), (5, 0, 6, 0))
    assert bootstrap_gap(hits, groups, 0) is None
    assert bootstrap_gap(hits, groups, 1) is None
    assert 0.1 < bootstrap_worst_group(hits, groups).mean < 0.6
    nothing = np.array([], dtype=bool), np.array([], dtype=int)
    assert bootstrap_worst_group(*nothing) is None
    assert bootstrap_gap(*nothing, 0) is None


def test_what_is_not_a_table_is_refused():
    with pytest.raises(ValueError, match="group 4 is beyond"):
        group_counts(np.array([0, 4]))
    with pytest.raises(ValueError, match="group -1 is beyond"):
        summarize_groups(np.array([True]), np.array([-1]))
    with pytest.raises(ValueError, match="one bool and one group"):
        summarize_groups(np.array([True, False]), np.array([0]))
    with pytest.raises(ValueError, match="one bool and one group"):
        summarize_groups(np.array([1, 2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="bird 2"):
        bootstrap_gap(np.array([True]), np.array([0]), 2)
    with pytest.raises(ValueError, match="four numbers"):
        GroupSummary((1, 1, 1, 1), (1, 1, 1, 1)).weighted_mean((1, 1, 1, -1))
