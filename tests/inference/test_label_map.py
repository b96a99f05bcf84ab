"""Painting label maps: upsampling in strips, softmax, thresholds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clippy_cli.inference import class_map, upsampling
from clippy_cli.inference import label_map as module
from clippy_cli.inference.label_map import paint
from clippy_cli.inference.upsampling import upsample_rows


@pytest.mark.parametrize(
    ("grid", "size"), [((28, 37), (375, 500)), ((1, 1), (5, 7)), ((3, 9), (2, 4)), ((6, 8), (48, 64))]
)
def test_rows_equal_the_same_rows_of_a_whole_interpolation(grid, size):
    maps = torch.randn(4, *grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    bounds = sorted({0, 1, size[0] // 3, size[0]})
    strips = [upsample_rows(maps, *size, start, stop) for start, stop in pairwise(bounds)]
    torch.testing.assert_close(torch.cat(strips, dim=1), whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("grid", [(6, 5), (40, 150), (61, 47)])  # of patches, of a refined photo, of pixels
@pytest.mark.parametrize("strip", [1, 47 * 7, 10**9])
def test_codes_and_scores_follow_the_definition_whatever_the_strips(monkeypatch, grid, strip):
    for name in ("_CPU_STRIP_PIXELS", "_STRIP_ELEMENTS"):
        monkeypatch.setattr(class_map, name, strip)
    for name in ("_PLAIN_ELEMENTS", "_CACHED_ELEMENTS"):
        monkeypatch.setattr(module, name, strip)
    logits = 5 * torch.randn(4, *grid, generator=torch.Generator().manual_seed(1))
    codes, threshold = (1, 2, 2, 0), 0.6
    whole = F.interpolate(logits[None].double(), (61, 47), mode="bilinear", align_corners=False)[0].softmax(dim=0)
    probability, winner = whole.max(dim=0)
    expected = torch.tensor(codes)[winner].masked_fill(probability < threshold, 0).numpy()
    assert set(np.unique(expected)) == {0, 1, 2}
    painted = paint(logits, 61, 47, codes, softmax=True, threshold=threshold)
    edge = (probability - threshold).abs().numpy() < 1e-5
    assert ((painted.codes == expected) | edge).all()
    for code in (0, 1, 2):
        mean = probability.numpy()[painted.codes == code].mean()
        assert painted.scores[code] == pytest.approx(mean, abs=1e-5)
    assert painted.shares.sum() == pytest.approx(1)


def test_scores_of_a_large_photo_are_those_of_all_its_pixels():
    logits = 6 * torch.randn(9, 5, 7, generator=torch.Generator().manual_seed(4))
    height, width = 900, 1210
    whole = F.interpolate(logits[None].double(), (height, width), mode="bilinear", align_corners=False)[0].softmax(0)
    probability, winner = (found.numpy() for found in whole.max(dim=0))
    painted = paint(logits, height, width, range(9), softmax=True)
    assert (painted.codes == winner).mean() > 0.9999
    for code in range(9):
        assert painted.scores[code] == pytest.approx(probability[winner == code].mean(), abs=1e-5)


def test_logits_far_apart_do_not_overflow():
    logits = torch.tensor([[[400.0, 0.0]], [[0.0, -400.0]], [[0.0, -399.0]]])
    painted = paint(logits, 1, 2, (0, 1, 2), softmax=True)
    assert painted.codes.tolist() == [[0, 0]] and painted.scores[0] == pytest.approx(1)


def test_a_code_without_pixels_has_no_score():
    painted = paint(torch.tensor([[[1.0]], [[0.0]]]), 3, 4, (1, 2))
    assert painted.pixels.tolist() == [0, 12, 0]
    assert np.isnan(painted.scores[[0, 2]]).all()
    assert painted.scores[1] == 1.0


def test_memory_does_not_grow_with_labels_times_pixels(monkeypatch):
    sizes = []

    def watched(*arguments):
        strip = upsample_rows(*arguments)
        sizes.append(strip.numel())
        return strip

    monkeypatch.setattr(upsampling, "upsample_rows", watched)
    monkeypatch.setattr(class_map, "_GPU_STRIP_ELEMENTS", 60 * 300 * 5 + 7)
    strips = class_map._by_pixels(torch.randn(60, 4, 4), torch.arange(60), 40, 300, class_map._GPU_STRIP_ELEMENTS)
    assert [strip.code.numel() for strip in strips] == [300 * 5] * 8
    assert sizes == [60 * 300 * 5] * 8


def test_barred_maps_lose_to_the_next_best_but_keep_their_share():
    logits = torch.tensor([2.0, 1.0, 0.0]).view(3, 1, 1)
    painted = paint(logits, 2, 2, (1, 2, 3), softmax=True, barred=torch.tensor([True, False, False]), count=5)
    assert painted.pixels.tolist() == [0, 0, 4, 0, 0]
    assert painted.scores[2] == pytest.approx(logits.flatten().softmax(dim=0)[1].item())


def test_pixels_below_the_threshold_get_the_fallback():
    painted = paint(torch.tensor([[[0.2, 0.9]]]), 1, 2, (1,), threshold=0.5, fallback=4)
    assert painted.codes.tolist() == [[4, 1]]
