"""Evaluation of a model whose right and wrong pixels can be counted by hand."""

import numpy as np
import pytest

from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentedImage
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.segmentation import class_vocabulary, evaluate_segmentation
from tests.fixtures.colour_model import ColourModel


class Flags:
    """Pictures of 48x48 pixels, left half red, right half blue; the mask says what each test wants."""

    name, ignore_index = "flags", 255

    def __init__(self, masks, classes=("red", "blue"), background=None, context=()):
        self.masks = masks
        self.classes = tuple(BenchmarkClass(name, (name,)) for name in classes)
        self.background_index, self.context = background, context

    def __len__(self):
        return len(self.masks)

    def read(self, index):
        mask = self.masks[index]
        if mask is None:
            raise ClippyError(f"image {index} is broken")
        image = np.zeros((48, 48, 3), np.uint8)
        image[:, :24, 0] = image[:, 24:, 2] = 255
        return SegmentedImage(str(index), image, np.repeat([mask], 48, axis=0))


def halves(left, right):
    return np.array([left] * 24 + [right] * 24, np.int64)


def test_counts_over_the_set_and_skips_what_cannot_be_read():
    seen = []
    flags = Flags([halves(0, 1), None, halves(0, 0), halves(255, 1)])
    result = evaluate_segmentation(
        ColourModel(), flags, resolution=48, on_progress=lambda done, total: seen.append((done, total))
    )
    half = 48 * 24
    assert result.confusion.tolist() == [[2 * half, half], [0, 2 * half]]
    assert result.iou == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert result.miou == pytest.approx(2 / 3)
    assert (result.images, result.failed) == (3, ("image 1 is broken",))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert evaluate_segmentation(ColourModel(), flags, resolution=48, limit=1).miou == 1.0


def test_context_words_count_as_the_background_class():
    flags = Flags([halves(1, 0)], classes=("green", "red"), background=0, context=("blue",))
    result = evaluate_segmentation(ColourModel(), flags, resolution=48)
    assert result.miou == 1.0
    assert result.protocol["background"] == "class 'green' and 1 context words count as background"
    assert class_vocabulary(flags)[1] == (0, 1, 0)


def test_the_record_names_protocol_and_absent_classes_without_nan():
    flags = Flags([halves(0, 0)], classes=("red", "blue", "green"))
    record = evaluate_segmentation(ColourModel(), flags, resolution=96, templates="none").record()
    assert record["iou"] == {"red": 0.5, "blue": 0.0, "green": None}
    assert record["absent_classes"] == ["blue", "green"]
    assert (record["protocol"]["resolution"], record["protocol"]["templates"]) == (96, "none")
