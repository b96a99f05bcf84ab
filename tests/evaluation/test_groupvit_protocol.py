"""Protocol groupvit against a plain repetition of what GroupViT's group_vit_seg.py does with a photo."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from clippy_cli.data.benchmarks.base import BenchmarkClass
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import Protocol, load_protocol
from clippy_cli.evaluation.published import published_for
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.model.sources.loading import load_model
from tests.evaluation.test_published import voc
from tests.evaluation.test_sclip_protocol import Photos, RandomModel
from tests.fixtures import foreign_models

RULES = {
    "resolution": 48, "sizes": "exact", "resize": "bilinear", "window": 32, "stride": 16, "window_average": "pixels",
    "best_classes": 2, "templates": ["a photo of a {}."], "background": "threshold", "threshold": 0.3,
    "logit_scale": 25,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("groupvit")
    return load_model(foreign_models.write_transformers(folder, "groupvit"), device="cpu")


def slid(model, image, texts, owners, scale, best, threshold):
    """(H,W,3) -> (H,W) classes, 0 the background: slide_inference over encode_decode, one step after the other."""
    height, width = image.shape[:2]
    factor = min(2048 / max(height, width), 48 / min(height, width))
    h, w = int(height * factor + 0.5), int(width * factor + 0.5)
    resized = torch.from_numpy(cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)
    pixels, patch = model.preprocess.normalize(resized)[None], model.preprocess.patch_size
    total, count = torch.zeros(max(owners) + 1, h, w), torch.zeros(h, w)
    for row in range(max(h - 32 + 15, 0) // 16 + 1):
        for column in range(max(w - 32 + 15, 0) // 16 + 1):
            bottom, right = min(row * 16 + 32, h), min(column * 16 + 32, w)
            top, left = max(bottom - 32, 0), max(right - 32, 0)
            crop = pixels[..., top:bottom, left:right]
            seen = crop[..., : crop.shape[-2] // patch * patch, : crop.shape[-1] // patch * patch]
            grouped = model.embed_groups(seen)
            logits = grouped.groups[0] @ texts.T * scale
            image_logits = (grouped.pooled[0] @ texts.T * scale).softmax(dim=0)
            kept = torch.full_like(logits, -torch.inf)
            kept[:, image_logits.topk(best).indices] = logits[:, image_logits.topk(best).indices]
            affinity = kept.softmax(dim=1) * logits.softmax(dim=1)
            owner = F.interpolate(grouped.assignment, crop.shape[-2:], mode="bilinear")[0].argmax(dim=0)
            prediction = torch.zeros(max(owners) + 1, *crop.shape[-2:])
            for text, code in enumerate(owners):
                prediction[code] = prediction[code].maximum(affinity[owner][..., text])
            if threshold is not None:
                prediction[0][affinity[owner].amax(dim=2) < min(threshold, affinity.max().item())] = 1
            total[:, top:bottom, left:right] += prediction
            count[top:bottom, left:right] += 1
    return F.interpolate((total / count)[None], (height, width), mode="bilinear")[0].argmax(dim=0)


WORDS = {"nothing": ("sky", "grass"), "dog": ("dog",), "cat": ("cat", "red"), "man": ("blue", "water")}


@pytest.mark.parametrize(
    ("rules", "words", "threshold"),
    [
        ({}, {"nothing": (), "dog": ("dog",), "cat": ("cat",), "man": ("water",)}, 0.3),
        ({"background": "words", "threshold": None, "competition": "texts"}, WORDS, None),
        ({"background": "words+threshold", "threshold": 0.2, "competition": "texts"}, WORDS, 0.2),
    ],
)
def test_label_maps_are_those_of_the_plain_rule(model, rules, words, threshold):
    images = Photos([(60, 77), (41, 130), (31, 29)])
    images.classes = tuple(BenchmarkClass(name, texts or (name,)) for name, texts in words.items())
    result = evaluate_set(model, images, Protocol.model_validate(RULES | rules), tasks=("segment",)).results[0]
    texts = model.embed_texts([f"a photo of a {word}." for texts in words.values() for word in texts])
    owners = [code for code, texts in enumerate(words.values()) for _ in texts]
    counts = torch.zeros(4, 4, dtype=torch.int64)
    for sample in images.samples:
        predicted = slid(model, sample.image, texts, owners, 25, 2, threshold)
        cells = torch.from_numpy(sample.mask).long() * 4 + predicted
        counts += torch.bincount(cells.flatten(), minlength=16).view(4, 4)
    found = torch.zeros_like(counts)
    for annotated, guessed, pixels in result.confusion:
        found[annotated, guessed] = pixels
    assert (counts.sum(dim=0) > 0).sum() >= 2
    assert (found - counts).abs().sum() <= 4  # a tie to rounding moves a pixel between two cells
    assert "2 classes that fit a window best" in result.protocol["competition"]


def test_groups_and_patches_are_of_one_model(model):
    images = torch.randn(2, 3, 32, 48)
    grouped = model.embed_groups(images)
    patches = F.normalize(torch.einsum("bghw,bgd->bhwd", grouped.assignment, grouped.groups), dim=-1)
    torch.testing.assert_close(patches, model.embed_patches(images))
    torch.testing.assert_close(grouped.assignment.sum(dim=1), torch.ones(2, *grouped.assignment.shape[2:]))
    native = torch.randn(2, 3, model.preprocess.resolution, model.preprocess.resolution)
    torch.testing.assert_close(model.embed_groups(native).pooled, model.embed_images(native))


def test_what_does_not_go_with_groups_is_said():
    images, protocol = Photos([(48, 48)]), Protocol.model_validate(RULES)
    with pytest.raises(ClippyError, match="random does not sort patches into groups"):
        evaluate_set(RandomModel(), images, protocol, tasks=("segment",))
    with pytest.raises(ClippyError, match="nothing to refine"):
        evaluate_set(RandomModel(), images, protocol, tasks=("segment",), overrides=Overrides(refine="guided"))
    with pytest.raises(ClippyError, match="nothing to refine"):
        evaluate_set(RandomModel(), images, protocol, tasks=("segment",), options=Options(regions=np.__path__[0]))


def test_a_smallest_area_is_refused_beside_best_classes():
    with pytest.raises(ValidationError, match="no class is taken back"):
        Protocol.model_validate(RULES | {"min_area": 0.1})


@pytest.mark.parametrize(("name", "threshold"), [("voc", 0.95), ("context60", 0.35), ("coco-object", 0.95)])
def test_the_shipped_protocol_has_groupvits_words_and_thresholds(name, threshold, model):
    ours = voc("groupvit", model, name)
    assert (ours["best_classes"], ours["background"]) == (5, f"probability below {threshold}")
    assert load_protocol("groupvit").sets[name].classes
    found = {f.model: f for f in published_for(name, "segment", "miou", ours=ours)}
    row = found["GroupViT (GCC + YFCC), by its authors"]
    assert row.comparable, row.why_not
