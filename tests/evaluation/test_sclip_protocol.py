"""Protocol sclip against a plain repetition of what SCLIP's clip_segmentor.py does with a photo, its words included."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentationSet, SegmentedImage, SetInfo
from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.data.images import exact_size
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import Protocol, load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides, resolve_settings
from clippy_cli.inference.choices import Filter, Sizes, WindowAverage
from clippy_cli.model.base import InferenceDefaults, Preprocess
from tests.fixtures.colour_model import ColourModel

PATCH, WIDTH = 8, 12
CLASSES = ("nothing", "dog", "cat", "man")
WORDS = {"nothing": ("sky", "wall"), "dog": ("dog",), "cat": ("cat", "kitten"), "man": ("man", "person in shirt")}
RULES = {
    "resolution": 48, "sizes": "exact", "resize": "bilinear", "window": 32, "stride": 16, "window_average": "pixels",
    "templates": ["a {}.", "the {}."], "competition": "texts", "logit_scale": 40,
}  # fmt: skip


class RandomModel:
    """A patch's embedding depends on where in the window it lies, so that windows differ where they overlap."""

    name, device, reads_texts = "random", torch.device("cpu"), True
    preprocess = Preprocess((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), PATCH, resolution=32)
    defaults = InferenceDefaults(resolution=48, templates="photo", logit_scale=40.0)

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.kernel = torch.randn(WIDTH, 3, PATCH, PATCH, generator=generator)
        self.place = torch.randn(WIDTH, 64, 64, generator=generator)

    def embed_patches(self, images):
        planes = F.conv2d(images, self.kernel, stride=PATCH)
        planes = planes + 8 * self.place[:, : planes.shape[2], : planes.shape[3]]
        return F.normalize(planes, dim=1).permute(0, 2, 3, 1)

    def embed_images(self, images):
        return F.normalize(self.embed_patches(images).mean(dim=(1, 2)), dim=-1)

    def embed_texts(self, texts):
        seeds = [sum(1000 * i + ord(letter) for i, letter in enumerate(text)) for text in texts]
        vectors = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return F.normalize(torch.stack(vectors), dim=-1)

    def score_images(self, images, texts):
        return self.embed_images(images) @ texts.T


class Photos(SegmentationSet):
    def __init__(self, sizes, background=0):
        self.info = SetInfo("photos", "Random photos")
        self.classes = tuple(BenchmarkClass(name, WORDS[name]) for name in CLASSES)
        self.background, self.context = background, ()
        rng = np.random.default_rng(0)
        self.samples = [
            SegmentedImage(
                f"{height}x{width}",
                cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height)),
                rng.integers(0, len(CLASSES), (height, width)).astype(np.uint8),
            )
            for height, width in sizes
        ]

    def __len__(self):
        return len(self.samples)

    def key(self, index):
        return self.samples[index].key

    def read(self, index):
        return self.samples[index]


def slid(model, image, texts, scale, threshold, least_area):
    """(H,W,3) -> (H,W) classes: SCLIP's forward_slide and postprocess_result, one step after the other."""
    height, width = image.shape[:2]
    factor = min(2048 / max(height, width), 48 / min(height, width))
    h, w = int(height * factor + 0.5), int(width * factor + 0.5)
    resized = torch.from_numpy(cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)
    pixels = model.preprocess.normalize(resized)[None]
    total, count = torch.zeros(len(texts), h, w), torch.zeros(h, w)
    for row in range(max(h - 32 + 15, 0) // 16 + 1):
        for column in range(max(w - 32 + 15, 0) // 16 + 1):
            bottom, right = min(row * 16 + 32, h), min(column * 16 + 32, w)
            top, left = max(bottom - 32, 0), max(right - 32, 0)
            crop = pixels[..., top:bottom, left:right]
            scores = torch.einsum("bhwd,kd->bkhw", model.embed_patches(crop), texts)
            total[:, top:bottom, left:right] += F.interpolate(scores, crop.shape[-2:], mode="bilinear")[0]
            count[top:bottom, left:right] += 1
    logits = F.interpolate((total / count)[None], (height, width), mode="bilinear")[0]
    of_texts = (logits * scale).softmax(dim=0)
    owners = [index for index, name in enumerate(CLASSES) for _ in WORDS[name]]
    of_classes = torch.stack(
        [of_texts[[k for k, o in enumerate(owners) if o == c]].amax(0) for c in range(len(CLASSES))]
    )
    if least_area is not None:
        areas = torch.bincount(of_classes.argmax(0).flatten(), minlength=len(CLASSES))[1:]
        of_classes[1:] *= (areas > least_area * areas.sum())[:, None, None]
    best, winner = of_classes.max(dim=0)
    if threshold is not None:
        winner[best < threshold] = 0
    return winner


@pytest.mark.parametrize(
    ("rules", "background", "threshold", "area"),
    [
        ({}, None, None, None),
        ({"background": "words+threshold", "threshold": 0.45}, 0, 0.45, None),
        ({"background": "words+threshold", "threshold": 0.3, "min_area": 0.3}, 0, 0.3, 0.3),
    ],
)
def test_label_maps_are_those_of_the_plain_rule_at_any_size(rules, background, threshold, area):
    model = RandomModel()
    images = Photos([(60, 77), (90, 61), (48, 48), (41, 230), (31, 29)], background)
    result = evaluate_set(model, images, Protocol.model_validate(RULES | rules), tasks=("segment",)).results[0]
    texts = []
    for word in (word for name in CLASSES for word in WORDS[name]):
        vectors = model.embed_texts([f"a {word}.", f"the {word}."])
        texts.append(F.normalize(vectors.mean(dim=0), dim=0))
    counts = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    for sample in images.samples:
        predicted = slid(model, sample.image, torch.stack(texts), 40, threshold, area)
        cells = torch.from_numpy(sample.mask).long() * len(CLASSES) + predicted
        counts += torch.bincount(cells.flatten(), minlength=len(CLASSES) ** 2).view(len(CLASSES), -1)
    found = torch.zeros_like(counts)
    for annotated, guessed, pixels in result.confusion:
        found[annotated, guessed] = pixels
    assert (counts > 0).sum() > 8  # no class takes it all
    assert (found - counts).abs().sum() <= 4  # a tie to rounding moves a pixel between two cells
    assert "averaged at pixels" in result.protocol["window"] and "not rounded to the patch" in result.protocol["resize"]


def test_windows_on_the_patch_grid_are_another_rule_that_names_itself():
    images, protocol = Photos([(60, 80), (60, 80)]), Protocol.model_validate(RULES)
    exact, quick = (
        evaluate_set(RandomModel(), images, protocol, tasks=("segment",), overrides=Overrides(window_average=average))
        for average in ("pixels", "patches")
    )
    assert exact.results[0].confusion != quick.results[0].confusion
    assert "on the patch grid" in quick.results[0].protocol["window"]
    assert "changed: window_average" in quick.results[0].protocol["name"]
    both = evaluate_set(RandomModel(), images, protocol, tasks=("segment", "group"))  # groups take a pass of their own
    assert both.results[0].confusion == exact.results[0].confusion
    assert "on the patch grid" in both.results[1].protocol["window"]
    for changes in ({"flip": True}, {"scales": (1.0, 2.0)}):
        with pytest.raises(ClippyError, match="one scale and no flip"):
            evaluate_set(RandomModel(), images, protocol, tasks=("segment",), overrides=Overrides(**changes))


def test_sizes_are_those_of_mmcv():
    assert exact_size(375, 500, 336) == (336, 448)
    assert exact_size(333, 500, 336) == (336, 505)
    assert exact_size(100, 1000, 336) == (205, 2048)  # the long side is 2048 pixels at most


# Short side, logit scale, texts, smallest area; counted in SCLIP's configs/cfg_*.py and cls_*.txt.
SETS = {
    "voc": (336, 65, 20 + 26 + 6 + 4, 0.1),
    "voc20": (336, 40, 20 + 6 + 4, None),
    "context60": (336, 50, 60, None),
    "context59": (336, 40, 59, None),
    "coco-object": (336, 50, 80 + 26 + 7, None),
    "coco-stuff": (448, 40, 171, None),
    "cityscapes": (560, 40, 19, None),
    "ade20k": (336, 40, 150, None),
}


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_sclips_words_and_settings(name):
    spec = load_spec(name)
    info = replace(SetInfo(name, name), catalogued=True)
    settings = resolve_settings(load_protocol("sclip"), info, ColourModel(), Overrides())
    side, scale, texts, area = SETS[name]
    assert (settings.resolution, settings.logit_scale) == (side, scale)
    assert (settings.window, settings.stride, settings.window_average) == (224, 112, WindowAverage.PIXELS)
    assert (settings.sizes, settings.resize, len(settings.templates)) == (Sizes.EXACT, Filter.BILINEAR, 80)
    assert tuple(settings.classes) == tuple(spec.classes)  # every class, in the set's order
    assert sum(map(len, settings.classes.values())) == texts
    assert settings.min_area == area if name == "voc" else True
    with_background = spec.background is not None
    assert with_background == (name in ("voc", "context60", "coco-object"))
    assert not with_background or settings.context == ()


def test_words_are_spelled_as_sclip_spells_them():
    protocol = load_protocol("sclip")
    assert protocol.sets["voc20"].classes["boat"] == ("ship",)
    assert protocol.sets["voc20"].classes["potted plant"] == ("pottedplant",)
    assert len(protocol.sets["voc20"].classes["person"]) == 7 and len(protocol.sets["voc20"].classes["tv monitor"]) == 5
    assert protocol.sets["coco-stuff"].classes["traffic light"] == ("trafficlight",)
    assert protocol.sets["ade20k"].classes["television"] == ("televisionreceiver",)
    assert protocol.sets["coco-object"].classes["person"][-1] == "body"


def test_a_protocol_of_ones_own_may_name_a_file_of_words(tmp_path):
    (tmp_path / "words.yaml").write_text("mine:\n  cat: [cat, kitten]\n  dog: hound\n", encoding="utf-8")
    own = tmp_path / "own.yaml"
    own.write_text("words: words.yaml\nsets: {mine: {classes: {dog: dog}, resolution: 96}}\n", encoding="utf-8")
    rules = load_protocol(str(own)).sets["mine"]
    assert (rules.classes, rules.resolution) == ({"cat": ("cat", "kitten"), "dog": ("dog",)}, 96)
    (tmp_path / "words.yaml").write_text("mine: {cat: []}\n", encoding="utf-8")
    with pytest.raises(ClippyError, match=r"words\.yaml has 1 problem"):
        load_protocol(str(own))
    for text, says in (("sizes: exact\n", "exact sizes need"), ("window_average: pixels\n", "needs a window")):
        own.write_text(text, encoding="utf-8")
        with pytest.raises(ClippyError, match=says):
            load_protocol(str(own))
