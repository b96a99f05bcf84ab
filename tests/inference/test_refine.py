"""Refinement against slow reimplementations, and what it must never do."""

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from clippy_cli import load
from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command
from clippy_cli.inference.choices import Refinement
from clippy_cli.inference.class_map import class_map
from clippy_cli.inference.label_map import paint
from clippy_cli.inference.refine.crf import crf
from clippy_cli.inference.refine.guided import EPSILON, coarse_size, guided_filter
from clippy_cli.inference.refine.guided_torch import guided_filter_on_device
from clippy_cli.inference.refine.pamr import pamr
from clippy_cli.inference.refine.refinement import parse_refinement, refine
from clippy_cli.inference.segment import Entries, Rule, Segmenter
from clippy_cli.inference.upsampling import upsample_rows, working_size
from tests.conftest import REPOSITORY

SAMPLE = REPOSITORY / "clippy_cli" / "assets" / "samples" / "raccoon.jpg"
RANDOM = np.random.default_rng(0)


def noise(*shape):
    return RANDOM.random(shape, dtype=np.float32)


def photo(height, width):
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_guided_filter(score, image, radius, epsilon):
    """One ridge regression a window, then the mean of the windows' answers at each pixel."""
    guide = image.astype(np.float64) / 255
    height, width = score.shape
    spread = [(radius, radius), (radius, radius)]
    colours = np.pad(guide, [*spread, (0, 0)], mode="symmetric")
    values = np.pad(score.astype(np.float64), spread, mode="symmetric")
    side = 2 * radius + 1
    slopes, offsets = np.empty((height, width, 3)), np.empty((height, width))
    for y in range(height):
        for x in range(width):
            c = colours[y : y + side, x : x + side].reshape(-1, 3)
            v = values[y : y + side, x : x + side].ravel()
            centred = c - c.mean(axis=0)
            ridge = centred.T @ centred / len(c) + epsilon * np.eye(3)
            slopes[y, x] = np.linalg.solve(ridge, centred.T @ (v - v.mean()) / len(c))
            offsets[y, x] = v.mean() - slopes[y, x] @ c.mean(axis=0)
    wide_slopes = np.pad(slopes, [*spread, (0, 0)], mode="symmetric")
    wide_offsets = np.pad(offsets, spread, mode="symmetric")
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            window = np.s_[y : y + side, x : x + side]
            result[y, x] = wide_slopes[window].mean(axis=(0, 1)) @ guide[y, x] + wide_offsets[window].mean()
    return result


def test_guided_filter_is_the_papers():
    scores, image = noise(2, 12, 15), photo(12, 15)
    expected = np.stack([plain_guided_filter(score, image, 3, 0.01) for score in scores])
    np.testing.assert_allclose(guided_filter(scores, image, 3, 0.01), expected, atol=2e-5)


def full_size_filter(scores, image, radius, epsilon=EPSILON):
    """The filter at the photo's own size, its 3x3 matrices inverted by NumPy."""
    guide = image.astype(np.float32) / 255

    def box(values):
        side = 2 * radius + 1
        return cv2.boxFilter(values, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REFLECT)

    means = box(guide)
    products = (guide[..., :, None] * guide[..., None, :]).reshape(*guide.shape[:2], 9)
    covariance = box(products).reshape(*guide.shape[:2], 3, 3) - means[..., :, None] * means[..., None, :]
    inverse = np.linalg.inv(covariance + epsilon * np.eye(3, dtype=np.float32))
    refined = []
    for score in scores:
        mean = box(score)
        slope = np.einsum("hwij,hwj->hwi", inverse, box(guide * score[..., None]) - means * mean[..., None])
        refined.append((box(slope) * guide).sum(axis=2) + box(mean - (slope * means).sum(axis=2)))
    return np.stack(refined)


def refined_fast_and_full(logits, image):
    """Labels of one photo's pixels by the filter as it is used, and by that of full size."""
    height, width = image.shape[:2]
    fast = refine(logits, range(len(logits)), image, Refinement.GUIDED)
    probabilities = upsample_rows(logits, height, width, 0, height).softmax(dim=0)[list(fast.classes)]
    full = full_size_filter(probabilities.numpy(), image, round(height / logits.shape[1]))
    return fast.probabilities.argmax(dim=0).numpy(), full.argmax(axis=0)


def test_coarse_coefficients_keep_the_labels_of_the_full_filter():
    with Image.open(SAMPLE) as sample:
        image = np.asarray(sample.resize((512, 384)))
    logits = 3 * torch.randn(6, 14, 19, generator=torch.Generator().manual_seed(0))
    fast, full = refined_fast_and_full(logits, image)
    assert (fast == full).mean() > 0.996  # 266 patches of noise have more border than any photo


@pytest.mark.slow
def test_photos_keep_the_labels_of_the_full_filter(real_data):
    photos = sorted((real_data / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[:24]
    if not photos:
        pytest.skip("needs the photos of VOC 2012")
    clip = load()
    labels = "cat,dog,person,car,bus,train,boat,bird,grass,sky,wall,tree"
    agreement = []
    for segmented in (clip.segment(photo, labels, refine="none") for photo in photos):
        logits = torch.from_numpy(segmented.similarity) * clip.model.defaults.logit_scale
        fast, full = refined_fast_and_full(logits, segmented.image)
        agreement.append((fast == full).mean())
    assert np.mean(agreement) >= 0.998


@pytest.mark.parametrize(("size", "radius"), [((40, 33), 3), ((90, 121), 9), ((12, 200), 30), ((300, 1), 20)])
def test_accelerators_filter_as_the_host_does(size, radius):
    scores, image = noise(3, *coarse_size(*size, radius)), photo(*size)
    on_device = guided_filter_on_device(torch.from_numpy(scores), torch.from_numpy(image).permute(2, 0, 1), radius)
    np.testing.assert_allclose(on_device.numpy(), guided_filter(scores, image, radius), atol=1e-4)


@pytest.mark.cuda
def test_the_gpu_refines_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    image, logits, _ = bright_square()
    for method in (Refinement.GUIDED, Refinement.PAMR):
        there = refine(logits.cuda(), (4, 0, 7), image, method)
        here = refine(logits, (4, 0, 7), image, method)
        assert there.probabilities.device.type == "cuda" and there.classes == here.classes
        torch.testing.assert_close(there.probabilities.cpu(), here.probabilities, atol=1e-4, rtol=0)


def plain_pamr(scores, image, dilations, iterations):
    """(K,H,W) and (H,W,3) in [0, 1], pixel by pixel."""
    height, width = image.shape[:2]

    def at(y, x):
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    ring = [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1)]
    for _ in range(iterations):
        mixed = np.zeros_like(scores)
        for y in range(height):
            for x in range(width):
                block = np.stack([image[at(y + dy, x + dx)] for dy, dx in ring])
                deviation = block.std(axis=0, ddof=1)
                around = [at(y + dy, x + dx) for dy, dx in ring if dy or dx]
                kernel = np.array(
                    [-(np.abs(image[place] - image[y, x]) / (0.1 * deviation)).mean() for place in around]
                )
                weights = np.exp(kernel - kernel.max())
                weights /= weights.sum()
                for weight, place in zip(weights, around, strict=True):
                    mixed[:, y, x] += weight * scores[(slice(None), *place)]
        scores = mixed
    return scores


def test_pamr_is_the_papers():
    scores, image = noise(20, 7, 9), noise(7, 9, 3)  # more maps than are refined at a time
    expected = plain_pamr(scores.astype(np.float64), image.astype(np.float64), (1, 3), 2)
    refined = pamr(torch.from_numpy(scores), torch.from_numpy(image).permute(2, 0, 1), (1, 3), 2)
    np.testing.assert_allclose(refined.numpy(), expected, atol=2e-5)


def bright_square():
    """A photo of a bright square on dark, and logits on a coarse grid that find it roughly."""
    image = np.full((64, 96, 3), 30, np.uint8)
    image[20:46, 29:59] = 220
    image += RANDOM.integers(0, 6, image.shape, dtype=np.uint8)
    inside = torch.from_numpy((image[..., 0] > 120).astype(np.float32))
    share = torch.nn.functional.avg_pool2d(inside[None], 8)  # (1,h,w)
    return image, torch.cat([2 * share, 2 * (1 - share), torch.full_like(share, -9.0)]), inside.numpy() > 0


@pytest.mark.parametrize("method", ["guided", "pamr", "crf"])
def test_masks_move_to_the_edges_of_the_photo(method):
    if method == "crf":
        pytest.importorskip("pydensecrf")
    image, logits, inside = bright_square()
    classes = (4, 0, 7)
    refined = refine(logits, classes, image, Refinement(method))
    assert refined.classes == (0, 4)  # 7 wins nothing before, and so cannot after
    plain = class_map(logits, classes, 64, 96).numpy() == 4
    sharp = paint(refined.probabilities, 64, 96, refined.classes).codes == 4
    assert (sharp != inside).mean() < 0.4 * (plain != inside).mean()
    total = refined.probabilities.sum(dim=0)
    assert total.max() <= 1 + 1e-4 and total.min() > 0.9


def test_with_a_filter_that_changes_nothing_all_comes_out_as_without_refinement(monkeypatch):
    monkeypatch.setattr(
        "clippy_cli.inference.refine.refinement._METHODS",
        {Refinement.PAMR: lambda probabilities, image, radius: probabilities},
    )
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(9, 5, 6, generator=generator)
    classes = (2, 2, 0, 1, 1, 3, 3, 3, 5)
    image = photo(40, 48)
    refined = refine(logits, classes, image, Refinement.PAMR)
    everything = upsample_rows(logits, 40, 48, 0, 40).softmax(dim=0)
    best = torch.stack([everything[[i for i, c in enumerate(classes) if c == kind]].amax(dim=0) for kind in (0, 1, 2)])
    torch.testing.assert_close(refined.probabilities[:3], best)
    entries = Entries(tuple("abcdefghi"), (1,) * 9, classes)
    for threshold, area in [(None, None), (0.25, None), (0.25, 0.15), (0.25, 0.9)]:
        rules = (Rule(1.0, threshold, area, refine=method) for method in (None, Refinement.PAMR))
        plain, same = (Segmenter(torch.eye(9), entries, rule).codes(logits, image, 40, 48) for rule in rules)
        assert torch.equal(plain.short(), same.short())


def test_large_photos_are_refined_at_a_bounded_size():
    assert working_size(375, 500) == (375, 500)
    height, width = working_size(4000, 6000)
    assert height * width <= 512 * 512 and height / width == pytest.approx(2 / 3, rel=0.01)


def test_one_class_alone_needs_no_refinement():
    refined = refine(torch.tensor([5.0, 0.0]).view(2, 1, 1), (1, 0), photo(8, 8), Refinement.PAMR)
    assert refined.classes == (1,)
    torch.testing.assert_close(refined.probabilities, torch.full((1, 8, 8), 1 / (1 + np.exp(-5.0))).float())


def test_methods_are_named_and_a_missing_package_is_explained(monkeypatch):
    assert parse_refinement("none") is None and parse_refinement("pamr") == "pamr"
    with pytest.raises(ClippyError, match="cannot be 'sharp'"):
        parse_refinement("sharp")
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ClippyError, match="pydensecrf2") as raised:
        parse_refinement("crf")
    assert install_command("crf") in raised.value.hint


def test_crf_keeps_the_sum_of_probabilities():
    pytest.importorskip("pydensecrf")
    probabilities = noise(3, 10, 12) / 4
    refined = crf(probabilities, photo(10, 12))
    np.testing.assert_allclose(refined.sum(axis=0), probabilities.sum(axis=0), atol=1e-5)
