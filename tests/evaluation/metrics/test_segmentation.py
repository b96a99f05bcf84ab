import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from clippy_cli.evaluation.metrics.segmentation import (
    class_accuracy,
    confusion_matrix,
    dense_counts,
    iou_per_class,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
    sparse_counts,
)

INTEGERS = [torch.uint8, torch.int16, torch.int32, torch.int64]


def random_maps(num_classes, seed, shape=(3, 40, 30)):
    """Prediction and target, a fifth of it ignored, of which one class is never annotated and one is absent."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, max(1, num_classes - 2), shape, generator=generator)
    prediction = torch.randint(0, max(1, num_classes - 1), shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    return prediction, target


@given(st.integers(2, 9), st.integers(0, 2**31), st.sampled_from(INTEGERS), st.sampled_from(INTEGERS))
@settings(max_examples=25, deadline=None)
def test_agrees_with_torchmetrics(num_classes, seed, prediction_type, target_type):
    prediction, target = random_maps(num_classes, seed)
    settings_ = {"num_classes": num_classes, "ignore_index": 255}
    confusion = confusion_matrix(prediction.to(prediction_type), target.to(target_type), num_classes, 255)
    assert torch.equal(confusion, MulticlassConfusionMatrix(**settings_)(prediction, target))
    iou = MulticlassJaccardIndex(average="none", **settings_)(prediction, target)
    torch.testing.assert_close(iou_per_class(confusion).nan_to_num().float(), iou)
    macro_iou = MulticlassJaccardIndex(average="macro", **settings_)(prediction, target)
    assert mean_iou(confusion) == pytest.approx(float(macro_iou), abs=1e-6)
    accuracy = MulticlassAccuracy(average="micro", **settings_)(prediction, target)
    assert pixel_accuracy(confusion) == pytest.approx(float(accuracy), abs=1e-6)
    recall = MulticlassAccuracy(average="none", **settings_)(prediction, target)
    torch.testing.assert_close(class_accuracy(confusion).nan_to_num().float(), recall)
    annotated = confusion.sum(dim=1) > 0
    assert mean_class_accuracy(confusion) == pytest.approx(float(recall[annotated].mean()), abs=1e-6)


@pytest.mark.parametrize("ignore_index", [-1, -100, 0, 2, 3, 200, 255, 256, 65535, 2**40])
def test_any_number_can_mean_ignored(ignore_index):
    prediction, target = random_maps(5, 0)
    renumbered = torch.where(target == 255, ignore_index, target)
    kept = target[renumbered != ignore_index], prediction[renumbered != ignore_index]
    expected = dense_counts([(row, column, 1) for row, column in zip(*(x.tolist() for x in kept), strict=True)], 5)
    assert torch.equal(confusion_matrix(prediction, renumbered, 5, ignore_index), expected)


@pytest.mark.parametrize("ignore_index", [256, 65536, -256, 2**40])
def test_a_number_that_the_type_cannot_hold_ignores_nothing(ignore_index):
    zeros = torch.zeros(3, dtype=torch.uint8)
    assert confusion_matrix(zeros, zeros, 2, ignore_index)[0, 0] == 3


def test_absent_classes_leave_the_mean_and_false_alarms_stay_in_it():
    target = torch.tensor([0, 0, 1, 255])
    prediction = torch.tensor([0, 2, 1, 3])  # class 2 is a false alarm; 3 is predicted on an ignored pixel alone
    confusion = confusion_matrix(prediction, target, 4, 255)
    assert iou_per_class(confusion)[:3].tolist() == [0.5, 1.0, 0.0]
    assert math.isnan(iou_per_class(confusion)[3])
    assert mean_iou(confusion) == 0.5
    assert mean_class_accuracy(confusion) == 0.75


@pytest.mark.parametrize("maps", [(torch.zeros(2, 2), torch.full((2, 2), 255)), (torch.zeros(0, 3), torch.zeros(0, 3))])
def test_nothing_but_ignored_pixels_gives_zeros_and_nan(maps):
    confusion = confusion_matrix(maps[0].to(torch.uint8), maps[1].to(torch.uint8), 3, 255)
    assert confusion.tolist() == [[0] * 3] * 3
    assert all(math.isnan(figure(confusion)) for figure in (mean_iou, pixel_accuracy, mean_class_accuracy))


def test_missed_pixels_count_as_wrong_but_as_no_false_alarm():
    confusion, missed = torch.tensor([[2, 0], [0, 3]]), torch.tensor([2, 0])
    assert iou_per_class(confusion, missed).tolist() == [0.5, 1.0]
    assert class_accuracy(confusion, missed).tolist() == [0.5, 1.0]
    assert (mean_iou(confusion, missed), mean_class_accuracy(confusion, missed)) == (0.75, 0.75)
    assert pixel_accuracy(confusion, missed) == 5 / 7


def test_counts_add_up_over_images_beyond_float_precision():
    big = torch.tensor([[2**24, 1], [0, 1]])
    total = big + confusion_matrix(torch.tensor([1]), torch.tensor([0]), 2, 255)
    assert total.tolist() == [[2**24, 2], [0, 1]]
    assert iou_per_class(total)[0] == 2**24 / (2**24 + 2)


def test_clusters_may_outnumber_the_classes():
    counts = confusion_matrix(torch.tensor([4, 4, 0, 2]), torch.tensor([0, 1, 1, 255]), 2, 255, num_predicted=5)
    assert sparse_counts(counts) == ((0, 4, 1), (1, 0, 1), (1, 4, 1))
    assert counts.shape == (2, 5)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [([3], [0]), ([0], [3]), ([0], [254]), ([0], [256]), ([0], [-1]), ([-1], [0]), ([3, 9], [0, 255]), ([0, 1], [0])],
)
def test_values_that_cannot_be_classes_are_refused(prediction, target):
    with pytest.raises(ValueError, match=r"beyond 0\.\.2|shape"):
        confusion_matrix(torch.tensor(prediction), torch.tensor(target), 3, 255)


@pytest.mark.parametrize("ignore_index", [-1, 2, 256])
def test_the_first_number_beyond_the_classes_is_refused_whatever_is_ignored(ignore_index):
    with pytest.raises(ValueError, match=r"target holds classes 0\.\.3, beyond 0\.\.2"):
        confusion_matrix(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 3, ignore_index]), 3, ignore_index)


def test_predictions_on_ignored_pixels_may_be_anything():
    assert not confusion_matrix(torch.tensor([-1, 99, 2**40]), torch.tensor([255, 255, 255]), 3, 255).any()


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_sparse_counts_come_back_dense(rows, columns, data):
    cells = st.one_of(st.just(0), st.integers(0, 2**53))
    line = st.lists(cells, min_size=columns, max_size=columns)
    counts = torch.tensor(data.draw(st.lists(line, min_size=rows, max_size=rows)))
    triples = sparse_counts(counts)
    assert torch.equal(dense_counts(triples, rows, columns), counts)
    assert all(count > 0 for _, _, count in triples)


@pytest.mark.parametrize("triple", [(3, 0, 1), (0, 3, 1), (-1, 0, 1), (0, 0, -1)])
def test_counts_outside_the_matrix_are_refused(triple):
    with pytest.raises(ValueError, match=r"no count of a 3x3 matrix"):
        dense_counts([(0, 0, 1), triple], 3)
