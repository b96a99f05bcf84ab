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

from clippy_cli.evaluation.metrics import (
    confusion_matrix,
    iou_per_class,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
)


@given(st.integers(2, 9), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_agrees_with_torchmetrics(num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 40, 30)
    target = torch.randint(0, num_classes, shape, generator=generator)
    prediction = torch.randint(0, num_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    settings_ = {"num_classes": num_classes, "ignore_index": 255}
    confusion = confusion_matrix(prediction, target, num_classes, 255)
    assert torch.equal(confusion, MulticlassConfusionMatrix(**settings_)(prediction, target))
    iou = MulticlassJaccardIndex(average="none", **settings_)(prediction, target)
    torch.testing.assert_close(iou_per_class(confusion).float(), iou)
    accuracy = MulticlassAccuracy(average="micro", **settings_)(prediction, target)
    assert pixel_accuracy(confusion) == pytest.approx(float(accuracy), abs=1e-6)
    macro = MulticlassAccuracy(average="macro", **settings_)(prediction, target)
    assert mean_class_accuracy(confusion) == pytest.approx(float(macro), abs=1e-6)


def test_absent_classes_leave_the_mean_and_false_alarms_stay_in_it():
    target = torch.tensor([0, 0, 1, 255])
    prediction = torch.tensor([0, 2, 1, 3])  # class 2 is a false alarm; 3 is predicted on an ignored pixel alone
    confusion = confusion_matrix(prediction, target, 4, 255)
    assert iou_per_class(confusion)[:3].tolist() == [0.5, 1.0, 0.0]
    assert math.isnan(iou_per_class(confusion)[3])
    assert mean_iou(confusion) == 0.5


def test_nothing_but_ignored_pixels_gives_nan():
    confusion = confusion_matrix(torch.zeros(4), torch.full((4,), 255), 3, 255)
    assert math.isnan(mean_iou(confusion)) and math.isnan(pixel_accuracy(confusion))


def test_counts_add_up_over_images_beyond_float_precision():
    big = torch.tensor([[2**24, 1], [0, 1]])
    total = big + confusion_matrix(torch.tensor([1]), torch.tensor([0]), 2, 255)
    assert total.tolist() == [[2**24, 2], [0, 1]]
    assert iou_per_class(total)[0] == 2**24 / (2**24 + 2)


@pytest.mark.parametrize(("prediction", "target"), [([3], [0]), ([0], [3]), ([-1], [0]), ([0, 1], [0])])
def test_values_that_cannot_be_classes_are_refused(prediction, target):
    with pytest.raises(ValueError, match=r"beyond 0\.\.2|shape"):
        confusion_matrix(torch.tensor(prediction), torch.tensor(target), 3, 255)
