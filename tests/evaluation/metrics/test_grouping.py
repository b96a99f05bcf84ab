import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import variation_of_information as skimage_variation
from sklearn.metrics import rand_score

from clippy_cli.evaluation.metrics.grouping import (
    average_best_overlap,
    contingency,
    hungarian_assignment,
    hungarian_confusion,
    jaccard,
    pooled_covering,
    probabilistic_rand_index,
    segmentation_covering,
    variation_of_information,
    without_extra_clusters,
)
from clippy_cli.evaluation.metrics.segmentation import iou_per_class, mean_iou, pixel_accuracy

FIGURES = [
    jaccard,
    average_best_overlap,
    segmentation_covering,
    lambda table: probabilistic_rand_index([table]),
    variation_of_information,
]
maps = hnp.arrays(np.int64, (4, 6), elements=st.integers(0, 4)).map(torch.from_numpy)
tables = hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 30)).map(
    torch.from_numpy
)


def best_sum(values):
    """The greatest sum of a one-to-one choice of cells, by trying all."""
    rows, columns = values.shape
    if rows > columns:
        return best_sum(values.T)
    return max(sum(values[row, c] for row, c in enumerate(order)) for order in permutations(range(columns), rows))


def masks_iou(groups, segments):
    """(G,S) IoU from boolean masks."""
    return np.array(
        [
            [
                ((groups == g) & (segments == s)).sum() / ((groups == g) | (segments == s)).sum()
                for s in segments.unique()
            ]
            for g in groups.unique()
        ]
    )


@given(maps, maps)
@settings(max_examples=40, deadline=None)
def test_overlap_figures_agree_with_masks_and_brute_force(groups, segments):
    table, overlaps = contingency(groups, segments), masks_iou(groups, segments)
    assert jaccard(table) == pytest.approx(best_sum(overlaps) / overlaps.shape[1])
    best = [overlaps[:, s].max() for s in range(overlaps.shape[1])]
    assert average_best_overlap(table) == pytest.approx(np.mean(best))
    areas = segments.unique(return_counts=True)[1].numpy()
    assert segmentation_covering(table) == pytest.approx(np.dot(best, areas) / 24)
    assert 0 <= jaccard(table) <= average_best_overlap(table) + 1e-12
    assert min(best) - 1e-12 <= segmentation_covering(table) <= max(best) + 1e-12


@given(maps, st.lists(maps, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_rand_index_and_variation_of_information_agree_with_other_libraries(groups, annotators):
    counted = [contingency(groups, segments) for segments in annotators]
    rand = [rand_score(segments.flatten(), groups.flatten()) for segments in annotators]
    assert probabilistic_rand_index(counted) == pytest.approx(np.mean(rand))
    bits = skimage_variation(groups.numpy(), annotators[0].numpy()).sum()
    assert variation_of_information(counted[0]) == pytest.approx(bits, abs=1e-9)


@given(maps, maps, st.permutations(range(5)), st.sampled_from([1, 7, 500, 10**9]))
@settings(max_examples=40, deadline=None)
def test_the_numbers_of_groups_mean_nothing(groups, segments, order, spread):
    renumbered = torch.tensor(order)[groups] * spread
    before, after = contingency(groups, segments), contingency(renumbered, segments)
    for figure in FIGURES:
        assert figure(after) == pytest.approx(figure(before), abs=1e-9)


@given(maps, maps)
@settings(max_examples=40, deadline=None)
def test_symmetry_bounds_and_perfection(groups, segments):
    there, back = contingency(groups, segments), contingency(segments, groups)
    assert torch.equal(there, back.T)
    assert variation_of_information(there) == pytest.approx(variation_of_information(back), abs=1e-9)
    assert probabilistic_rand_index([there]) == probabilistic_rand_index([back])
    assert 0 <= probabilistic_rand_index([there]) <= 1
    assert 0 <= variation_of_information(there) <= 2 * math.log2(5) + 1e-9
    same = contingency(groups, groups + 3)
    assert [figure(same) for figure in FIGURES] == [1, 1, pytest.approx(1), 1, 0]


@pytest.mark.parametrize("spread", [1, 10**6])
@pytest.mark.parametrize("ignored", [255, -1, 0])
def test_ignored_pixels_do_not_count_at_all(ignored, spread):
    groups = torch.tensor([[3, 3, 8], [8, 8, 5]]) * spread
    segments = torch.tensor([[4, 4, 4], [9, ignored, ignored]])  # group 5 lies on ignored pixels alone
    table = contingency(groups, segments, ignored)
    assert table.tolist() == [[2, 0], [1, 1]] and table.dtype == torch.int64
    assert jaccard(table) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert contingency(groups, segments).sum() == 6


def test_small_integer_types_are_not_overrun():
    groups = torch.arange(200, dtype=torch.uint8).reshape(10, 20)
    for ignored in (None, 256, -256):
        assert torch.equal(contingency(groups, groups, ignored), torch.eye(200, dtype=torch.int64))
    wide = groups.to(torch.int16) * 100
    assert contingency(wide, wide, 65536).shape == (200, 200)


def test_pooled_covering_is_that_of_all_regions_of_all_annotators():
    """As collect_eval_reg.m adds up: area times best overlap over every region, divided by every area."""
    rng = np.random.default_rng(0)
    right, area, coverings, pixels = 0.0, 0, [], []
    for side, annotators in ((6, 1), (12, 5), (9, 2)):
        groups = rng.integers(0, 3, (side, side))
        maps = [rng.integers(0, count, (side, side)) for count in range(1, annotators + 1)]
        for regions in maps:
            for region in np.unique(regions):
                own = regions == region
                best = max((own & (groups == g)).sum() / (own | (groups == g)).sum() for g in np.unique(groups))
                right, area = right + own.sum() * best, area + int(own.sum())
        counted = [contingency(torch.from_numpy(groups), torch.from_numpy(regions)) for regions in maps]
        coverings.append(float(np.mean([segmentation_covering(table) for table in counted])))
        pixels.append(sum(int(table.sum()) for table in counted))
    assert pooled_covering(coverings, pixels) == pytest.approx(right / area, abs=1e-12)
    assert pooled_covering(coverings, pixels) != pytest.approx(np.mean(coverings), abs=1e-3)
    assert math.isnan(pooled_covering([], []))


def test_extra_clusters_are_dropped_with_their_pixels_as_stego_does():
    """Its rule on pixels: those of clusters numbered beyond the classes are masked before anything is counted."""
    rng = np.random.default_rng(1)
    actual, clusters = rng.integers(0, 3, 4000), rng.integers(0, 6, 4000)
    clusters = np.where(rng.random(4000) < 0.6, (actual + 1) % 3, clusters)
    counts = torch.zeros(6, 3, dtype=torch.int64)
    np.add.at(counts.numpy(), (clusters, actual), 1)
    seen = clusters < 3
    best = max(permutations(range(3)), key=lambda order: sum(np.array(order)[clusters[seen]] == actual[seen]))
    named, shown = np.array(best)[clusters[seen]], actual[seen]
    ious = [((named == c) & (shown == c)).sum() / ((named == c) | (shown == c)).sum() for c in range(3)]
    kept, missed = hungarian_confusion(without_extra_clusters(counts))
    assert mean_iou(kept) == pytest.approx(np.mean(ious)) and not missed.any()
    assert pixel_accuracy(kept) == pytest.approx((named == shown).mean())
    assert mean_iou(*hungarian_confusion(counts)) < mean_iou(kept)


def test_unmatched_segments_count_zero():
    table = torch.tensor([[10, 10]])  # one group, two segments
    assert (jaccard(table), average_best_overlap(table), segmentation_covering(table)) == (0.25, 0.5, 0.5)


@pytest.mark.parametrize("size", [(0, 0), (2, 3)])
def test_nothing_annotated_gives_nan(size):
    table = contingency(torch.zeros(size, dtype=torch.int64), torch.full(size, 255), 255)
    assert all(math.isnan(figure(table)) for figure in FIGURES)
    assert probabilistic_rand_index([table, torch.tensor([[2, 0], [0, 1]])]) == 1.0


def test_maps_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        contingency(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))


@given(tables)
@settings(max_examples=60, deadline=None)
def test_cluster_matching_gets_most_pixels_right_and_loses_none(counts):
    confusion, unmatched = hungarian_confusion(counts)
    assert confusion.diagonal().sum() == best_sum(counts.numpy())
    assert torch.equal(confusion.sum(dim=1) + unmatched, counts.sum(dim=0))
    assignment = hungarian_assignment(counts)
    classes = assignment[assignment >= 0]
    assert len(classes.unique()) == len(classes) == min(counts.shape)


def test_clusters_without_a_class_are_missed_and_classes_without_a_cluster_score_zero():
    counts = torch.tensor([[0, 9], [8, 0], [2, 3]])  # more clusters than classes
    assert hungarian_assignment(counts).tolist() == [1, 0, -1]
    confusion, unmatched = hungarian_confusion(counts)
    assert (confusion.tolist(), unmatched.tolist()) == ([[8, 0], [0, 9]], [2, 3])
    assert iou_per_class(confusion, unmatched).tolist() == [8 / 10, 9 / 12]
    assert pixel_accuracy(confusion, unmatched) == 17 / 22
    confusion, unmatched = hungarian_confusion(torch.tensor([[6, 4]]))  # one cluster, two classes
    assert not unmatched.any()
    assert iou_per_class(confusion, unmatched).tolist() == [6 / 10, 0]
    assert mean_iou(*hungarian_confusion(torch.eye(3, dtype=torch.int64)[[2, 0, 1]])) == 1
