"""What Python (and so the commands and the demo) paints is what evaluation counts, pixel for pixel."""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from clippy_cli.clip import Clip
from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentationSet, SegmentedImage, SetInfo
from clippy_cli.evaluation.metrics.segmentation import confusion_matrix
from clippy_cli.evaluation.protocol import Protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks import segment as segment_task
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.reporting.model_choice import ModelChoice
from tests.conftest import REPOSITORY

SAMPLE = REPOSITORY / "clippy_cli" / "assets" / "samples" / "raccoon.jpg"
LABELS = {"animal": ("animal", "raccoon"), "plant": ("plant", "grass", "leaf"), "stone": ("stone",)}
CONTEXT = ("sky", "wall")
WINDOWS = {"window": 24, "stride": 16, "resolution": 48}


def photos():
    """The sample at several small sizes and crops."""
    with Image.open(SAMPLE) as image:
        boxes = [((0, 0, 1024, 768), (233, 175)), ((300, 0, 1000, 500), (181, 129)), ((0, 200, 400, 768), (101, 143))]
        return [np.array(image.crop(box).resize(size)) for box, size in boxes]


@dataclass
class Photos(SegmentationSet):
    """A set of the photos; class 0 is the background."""

    images: list

    def __post_init__(self):
        self.info = SetInfo("photos", "Photos of a raccoon")
        self.classes = (
            BenchmarkClass("background", ("background",)),
            *(BenchmarkClass(name, words) for name, words in LABELS.items()),
        )
        self.background, self.context = 0, CONTEXT

    def __len__(self):
        return len(self.images)

    def key(self, index):
        return f"photo-{index}"

    def files(self, index):
        return ()

    def read(self, index):
        image = self.images[index]
        return SegmentedImage(self.key(index), image, np.zeros(image.shape[:2], np.uint8))


@pytest.mark.parametrize(
    ("rules", "options"),
    [
        ({}, {"refine": "none"}),
        ({"refine": "guided"}, {"refine": "guided"}),
        ({"refine": "pamr"}, {"refine": "pamr"}),
        ({"background": "words+threshold", "threshold": 0.3}, {"threshold": 0.3, "refine": "none"}),
        (
            {"background": "words+threshold", "threshold": 0.25, "min_area": 0.2, "refine": "guided"},
            {"threshold": 0.25, "min_area": 0.2, "refine": "guided"},
        ),
        (
            {"background": "words+threshold", "threshold": 0.25, "min_area": 0.4},
            {"threshold": 0.25, "min_area": 0.4, "refine": "none"},
        ),
        ({"scales": (1.0, 1.5), "flip": True}, {"scales": (1.0, 1.5), "flip": True, "refine": "none"}),
        (WINDOWS, {**WINDOWS, "refine": "none"}),
    ],
    ids=["plain", "guided", "pamr", "threshold", "area-guided", "area", "views", "windows"],
)
def test_what_is_painted_is_what_is_counted(rules, options, nano, monkeypatch, tmp_path):
    images = photos()
    counted = []

    def spy(predicted, *arguments):
        counted.append(predicted.cpu().numpy())
        return confusion_matrix(predicted, *arguments)

    monkeypatch.setattr(segment_task, "confusion_matrix", spy)
    for index, image in enumerate(images):
        rows, columns = np.indices(image.shape[:2])
        Image.fromarray((rows // 20 * 13 + columns // 20).astype(np.uint8)).save(tmp_path / f"photo-{index}.png")
    protocol = Protocol(templates=("photo",), **rules)
    evaluate_set(nano, Photos(images), protocol, tasks=["segment"], options=Options(regions=tmp_path))
    clip = Clip(ModelChoice(nano, "nano"))
    labels = ["|".join(words) for words in LABELS.values()]
    painted = []
    for index, image in enumerate(images):
        numbers = np.asarray(Image.open(tmp_path / f"photo-{index}.png"))
        seg = clip.segment(
            image, labels, background=["background", *CONTEXT], templates="photo", regions=numbers, **options
        )
        painted += [seg.mask, seg.by_region.mask]
    assert len(counted) == len(painted)
    for ours, theirs in zip(painted, counted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(np.unique(np.concatenate([mask.ravel() for mask in painted]))) > 1


def test_the_default_model_paints_real_photos_as_they_are_counted(real_data, monkeypatch):
    """Words of VOC's classes, context words as background, guided: three photos of the set."""
    from clippy_cli import api
    from clippy_cli.data.benchmarks.catalogue import find_set, open_set

    images = open_set("voc", *find_set("voc", real_data))
    assert images.kind == "segmentation" and images.background is not None
    counted = []

    def spy(predicted, *arguments):
        counted.append(predicted.cpu().numpy())
        return confusion_matrix(predicted, *arguments)

    monkeypatch.setattr(segment_task, "confusion_matrix", spy)
    clip = api.load()
    protocol = Protocol(templates=("photo",))
    overrides = Overrides(refine="guided")
    evaluate_set(clip.model, images, protocol, tasks=["segment"], overrides=overrides, options=Options(limit=3))
    labels = ["|".join(entry.prompts) for index, entry in enumerate(images.classes) if index != images.background]
    background = [*images.classes[images.background].prompts, *images.context]
    for index, theirs in enumerate(counted):
        seg = clip.segment(images.read(index).image, labels, background=background, templates="photo", refine="guided")
        np.testing.assert_array_equal(seg.mask, theirs)
    assert len(counted) == 3
