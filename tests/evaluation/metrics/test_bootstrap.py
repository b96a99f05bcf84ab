"""The bootstrap against plain loops over the same draws."""

import numpy as np
import pytest

from clippy_cli.evaluation.metrics import bootstrap
from clippy_cli.evaluation.metrics.bootstrap import class_areas, paired_bootstrap_mean, paired_bootstrap_miou
from tests.fixtures.evaluation import BETTER, COUNTS

A, B = list(COUNTS.values()), list(BETTER.values())


def plain_miou(images, num_classes):
    """mIoU from one dense confusion matrix; predictions beyond the classes only miss."""
    confusion = np.zeros((num_classes, num_classes + 1))
    for counts in images:
        for annotated, predicted, pixels in counts:
            confusion[annotated, predicted if 0 <= predicted < num_classes else num_classes] += pixels
    ious = []
    for index in range(num_classes):
        union = confusion[index].sum() + confusion[:, index].sum() - confusion[index, index]
        if union:
            ious.append(confusion[index, index] / union)
    return np.mean(ious)


def plain_interval(difference, images, resamples, seed):
    rng = np.random.default_rng(seed)
    draws = rng.integers(images, size=(resamples, images))
    values = [difference(row) for row in draws]
    return (*np.percentile(values, [2.5, 97.5]), np.mean(values))


@pytest.mark.parametrize("chunk", [1, 7, 2**22])
def test_miou_agrees_with_a_loop_whatever_the_chunks(monkeypatch, chunk):
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", chunk)
    rng = np.random.default_rng(5)
    a, b = (
        [
            [(int(rng.integers(4)), int(rng.integers(-1, 5)), int(rng.integers(1, 90))) for _ in range(3)]
            for _ in range(6)
        ]
        for _ in range(2)
    )
    found = paired_bootstrap_miou(a, b, 5, resamples=50, seed=3)

    def difference(draw):
        return plain_miou([b[i] for i in draw], 5) - plain_miou([a[i] for i in draw], 5)

    np.testing.assert_allclose((found.low, found.high, found.mean), plain_interval(difference, 6, 50, 3), atol=1e-12)


def test_means_agree_with_a_loop_and_leave_out_what_is_undefined():
    a = [0.1, None, 0.4, 0.3, float("nan"), 0.8]
    b = [0.3, 0.9, 0.2, 0.6, 0.5, 0.7]
    kept = [0.2, -0.2, 0.3, -0.1]
    found = paired_bootstrap_mean(a, b, resamples=40, seed=1)
    expected = plain_interval(lambda draw: np.mean([kept[i] for i in draw]), 4, 40, 1)
    np.testing.assert_allclose((found.low, found.high, found.mean), expected, atol=1e-12)


def test_the_same_results_differ_by_nothing_at_all():
    same = paired_bootstrap_miou(A, A, 3)
    assert (same.low, same.high, same.mean) == (0.0, 0.0, 0.0)
    scores = [0.1, 0.7, None, 1 / 3]
    same = paired_bootstrap_mean(scores, scores)
    assert (same.low, same.high, same.mean) == (0.0, 0.0, 0.0)
    assert not same.excludes_zero


def test_better_is_positive_and_swapping_turns_the_sign():
    forward, backward = paired_bootstrap_miou(A, B, 3), paired_bootstrap_miou(B, A, 3)
    assert 0 < forward.low <= forward.mean <= forward.high
    assert forward.excludes_zero
    np.testing.assert_allclose((backward.low, backward.high), (-forward.high, -forward.low), atol=1e-12)


def test_nothing_to_measure_is_none():
    assert paired_bootstrap_miou([[], []], [[], []], 3) is None
    assert paired_bootstrap_miou([], [], 3) is None
    assert paired_bootstrap_mean([None, 0.5], [0.5, None]) is None


def test_images_without_annotation_change_nothing():
    with_empty = paired_bootstrap_miou([*A, ()], [*B, ()], 3)
    assert with_empty == paired_bootstrap_miou(A, B, 3)


def test_areas_of_classes():
    areas = class_areas(A, 3).total()
    assert areas.annotated.tolist() == [200, 100, 0]
    assert areas.predicted.tolist() == [210, 70, 20]
    assert areas.intersection.tolist() == [180, 50, 0]
    assert float(areas.miou()) == pytest.approx((180 / 230 + 50 / 120 + 0) / 3)
    with pytest.raises(ValueError, match="annotated class -1"):
        class_areas([[(-1, 0, 1)]], 3)
    with pytest.raises(ValueError, match="1 and 2 images"):
        paired_bootstrap_mean([1.0], [1.0, 2.0])
