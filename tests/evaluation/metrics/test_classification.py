import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from clippy_cli.evaluation.metrics.classification import accuracy_per_class, mean_per_class_accuracy, topk_hits


def test_agrees_with_scikit_learn_without_ties():
    rng = np.random.default_rng(0)
    scores, targets = rng.permuted(np.tile(np.arange(12.0), (200, 1)), axis=1), rng.integers(0, 12, 200)
    hits = topk_hits(torch.from_numpy(scores), torch.from_numpy(targets), (1, 5))
    for k, hit in hits.items():
        oracle = top_k_accuracy_score(targets, scores, k=k, labels=np.arange(12))
        assert float(hit.double().mean()) == pytest.approx(oracle)
    oracle = balanced_accuracy_score(targets, scores.argmax(axis=1))
    assert mean_per_class_accuracy(hits[1], torch.from_numpy(targets), 12) == pytest.approx(oracle)


@pytest.mark.parametrize("value", [0.3, math.nan, -math.inf])
def test_ties_do_not_favour_the_model(value):
    hits = topk_hits(torch.full((4, 6), value), torch.tensor([0, 2, 4, 5]), (1, 5, 6))
    assert {k: hit.tolist() for k, hit in hits.items()} == {1: [False] * 4, 5: [False] * 4, 6: [True] * 4}
    two = topk_hits(torch.tensor([[2.0, 2.0, 1.0]]), torch.tensor([0]), (1, 2))
    assert (bool(two[1]), bool(two[2])) == (False, True)


def test_classes_without_images_leave_the_mean():
    hits, targets = torch.tensor([True, False, True]), torch.tensor([0, 0, 2])
    accuracy = accuracy_per_class(hits, targets, 4)
    assert accuracy[[0, 2]].tolist() == [0.5, 1.0] and accuracy[[1, 3]].isnan().all()
    assert mean_per_class_accuracy(hits, targets, 4) == 0.75
    assert math.isnan(mean_per_class_accuracy(hits[:0], targets[:0], 4))


@pytest.mark.parametrize("target", [-1, 3])
def test_targets_outside_the_classes_are_refused(target):
    with pytest.raises(ValueError, match=rf"class {target}, beyond 0\.\.2"):
        topk_hits(torch.zeros(2, 3), torch.tensor([0, target]), (1,))
